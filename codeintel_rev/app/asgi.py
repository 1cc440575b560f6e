"""What each Hypercorn worker loads."""

from codeintel_rev.app.main import create_app
from codeintel_rev.app.opening import open_index
from codeintel_rev.config.settings import load_settings

app = create_app(load_settings(), open_index)
