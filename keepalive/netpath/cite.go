package netpath

// noSNAT is the hold of a box that takes no ports of ours, so that it adds
// nothing to a Chain.
var noSNAT = Hold{FIN: None, RST: None, SYN: None, Idle: None}

// guessed marks fields as cautious guesses.
func guessed(fields ...string) []Cite {
	var cites []Cite
	for _, f := range fields {
		cites = append(cites, Cite{f, "not documented; a cautious guess", Assumed})
	}
	return cites
}

// holdsFrom gives all holds one source.
func holdsFrom(source string, grade Grade) []Cite {
	var cites []Cite
	for _, f := range []string{"Hold.FIN", "Hold.RST", "Hold.SYN", "Hold.Idle"} {
		cites = append(cites, Cite{f, source, grade})
	}
	return cites
}
