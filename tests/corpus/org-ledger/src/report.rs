//! Monthly statements for the auditors.

/// Renders a balance sheet as comma separated values, one account a line.
pub fn balance_sheet(accounts: &[(String, i64)]) -> String {
    let mut lines = vec![String::from("account,balance")];
    for (name, balance) in accounts {
        lines.push(format!("{name},{balance}"));
    }
    lines.join("\n")
}
