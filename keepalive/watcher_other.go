//go:build !linux

package keepalive

// addLocked watches nothing: there is no watcher for this system yet.
func (w *Watcher) addLocked(*life, *watch) bool { return false }
