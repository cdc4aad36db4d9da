package pool

// A list is a doubly linked list of nodes that their owners embed, so that
// joining and leaving cost no memory and no search.
type list[O any] struct {
	root node[O]
	len  int
}

// A node is a place in at most one list.
type node[O any] struct {
	owner      O
	prev, next *node[O]
}

func (n *node[O]) listed() bool { return n.next != nil }

func (l *list[O]) init() { l.root.prev, l.root.next = &l.root, &l.root }

// front returns the zero O where the list is empty.
func (l *list[O]) front() O { return l.root.next.owner }

// insertBefore takes the root for the end of the list.
func (l *list[O]) insertBefore(n, at *node[O]) {
	n.prev, n.next = at.prev, at
	n.prev.next, at.prev = n, n
	l.len++
}

func (l *list[O]) remove(n *node[O]) {
	n.prev.next, n.next.prev = n.next, n.prev
	n.prev, n.next = nil, nil
	l.len--
}
