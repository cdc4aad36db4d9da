//go:build !race

package pool_test

// racing tells that the race detector is on: it allocates where the pool does not.
const racing = false
