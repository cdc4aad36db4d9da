package pool

// A stack holds the entries that can be lent, or will be after a probe, the
// warmest last. A slice, because almost all that happens happens at its end.
type stack[T any] []*entry[T]

func (s *stack[T]) push(e *entry[T]) {
	*s = append(*s, e)
	e.at = len(*s)
}

func (s *stack[T]) remove(e *entry[T]) {
	last := len(*s) - 1
	for i := e.at - 1; i < last; i++ {
		(*s)[i] = (*s)[i+1]
		(*s)[i].at = i + 1
	}
	(*s)[last] = nil
	*s = (*s)[:last]
	e.at = 0
}
