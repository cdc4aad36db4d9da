package dialer

import "github.com/natwise/natwise/keepalive"

// LearnerOf is the ledger's own.
func LearnerOf(l *Ledger) *keepalive.Learner { return &l.learner }
