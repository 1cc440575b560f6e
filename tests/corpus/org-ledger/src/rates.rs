//! Exchange rates between currencies.

use std::collections::HashMap;

/// Rates against one base currency.
pub struct RateTable {
    rates: HashMap<String, f64>,
}

impl RateTable {
    /// Converts an amount from one currency into another, None when a rate is unknown.
    pub fn convert(&self, amount: f64, from: &str, to: &str) -> Option<f64> {
        let source = self.rates.get(from)?;
        let target = self.rates.get(to)?;
        Some(amount / source * target)
    }
}

/// Rounds half to even, as banks do.
pub fn round_half_even(value: f64) -> f64 {
    let floor = value.floor();
    if value - floor == 0.5 && floor % 2.0 == 0.0 {
        return floor;
    }
    value.round()
}
