package budget

// part returns how many of n ports one member may hold that wants as many as it can get:
// its max-min fair part. The others are given what they hold, or as much as this member
// where they are hungry; nobody gets more than it asks for while another has less. What
// does not divide goes to those who stand first: odd of the hungry stand before this one.
func part(n int, others []int, hungry int, before int) int {
	left, sharing := n, 1+hungry+len(others)
	for again := true; again; {
		again = false
		for i, h := range others {
			if h >= 0 && h <= left/sharing {
				left -= h
				sharing--
				others[i], again = -1, true
			}
		}
	}
	each, odd := left/sharing, left%sharing
	if before < odd {
		each++
	}
	return each
}
