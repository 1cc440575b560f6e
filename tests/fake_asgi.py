"""The application over the fakes, for real servers in end-to-end tests."""

from fakes import open_fakes

from codeintel_rev.app.main import create_app
from codeintel_rev.config.settings import load_settings

app = create_app(load_settings(), open_fakes)
