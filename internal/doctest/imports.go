package doctest

import (
	"cmp"
	"slices"
	"strings"
)

const natwise = "github.com/natwise/natwise/"

// packages returns the import path of the package that a block of a module means by a name:
// natwise's first, then what the module imports by itself, the standard library's, and what
// these bring along.
func packages(dir string) (map[string]string, error) {
	const each = `{{join .Imports " "}} {{join .TestImports " "}} {{join .XTestImports " "}}`
	said, err := run(dir, "list", "-e", "-f", each, "./...")
	if err != nil {
		return nil, err
	}
	direct := strings.Fields(said)
	said, err = run(dir, "list", "-e", "-deps", "-test", "-f", "{{.Name}} {{.ImportPath}}", "./...", "std")
	if err != nil {
		return nil, err
	}
	rank := func(path string) int {
		host, _, _ := strings.Cut(path, "/")
		switch {
		case strings.HasPrefix(path, natwise):
			return 0
		case slices.Contains(direct, path):
			return 1
		case !strings.Contains(host, "."):
			return 2
		}
		return 3
	}
	imports := make(map[string]string)
	for line := range strings.Lines(said) {
		name, path, _ := strings.Cut(strings.TrimSpace(line), " ")
		if name == "main" || !importable(path) {
			continue
		}
		old, taken := imports[name]
		if !taken || cmp.Or(rank(path)-rank(old), len(path)-len(old)) < 0 {
			imports[name] = path
		}
	}
	return imports, nil
}

// importable leaves out what the go command makes up for tests, and what is internal to others.
func importable(path string) bool {
	switch {
	case strings.Contains(path, " ") || strings.HasPrefix(path, "vendor/"):
		return false
	case strings.HasPrefix(path, natwise):
		return true
	}
	return !strings.Contains("/"+path+"/", "/internal/")
}
