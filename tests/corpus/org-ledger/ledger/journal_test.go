package ledger

import "testing"

func TestAppendRefusesAnUnbalancedEntry(t *testing.T) {
	var journal Journal
	if err := journal.Append([]Posting{{"cash", 5}}); err != ErrUnbalanced {
		t.Fatalf("Append returned %v", err)
	}
}
