// Package ledger keeps books: every amount is entered twice.
package ledger

import "errors"

// ErrUnbalanced is returned when debits and credits of an entry differ.
var ErrUnbalanced = errors.New("debits and credits differ")

// Posting moves an amount into an account, or out of it when negative.
type Posting struct {
	Account string
	Amount  int64
}

// Journal is an append-only list of entries.
type Journal struct {
	entries [][]Posting
}

// Append records an entry after checking that its postings sum to zero.
func (j *Journal) Append(entry []Posting) error {
	var sum int64
	for _, posting := range entry {
		sum += posting.Amount
	}
	if sum != 0 {
		return ErrUnbalanced
	}
	j.entries = append(j.entries, entry)
	return nil
}

// Balance returns what is in an account after all entries.
func (j *Journal) Balance(account string) int64 {
	var total int64
	for _, entry := range j.entries {
		for _, posting := range entry {
			if posting.Account == account {
				total += posting.Amount
			}
		}
	}
	return total
}
