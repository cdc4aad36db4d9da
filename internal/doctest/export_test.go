package doctest

// Problems is what Check would say of a module, and of how many blocks.
var Problems = check

// Modules returns the directories of the modules that have blocks, relative to root.
func Modules(root string) (map[string]bool, error) {
	blocks, err := find(root)
	modules := make(map[string]bool)
	for _, b := range blocks {
		modules[b.module] = true
	}
	return modules, err
}
