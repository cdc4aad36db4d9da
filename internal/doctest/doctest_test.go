package doctest_test

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/natwise/natwise/internal/doctest"
)

func TestDocumentation(t *testing.T) { doctest.Check(t) }

// write makes a module of these files, and returns where. A bar stands for a backquote.
func write(t *testing.T, files map[string]string) (root string) {
	t.Helper()
	root = t.TempDir()
	files["go.mod"] = "module example.com/shown\n\ngo 1.26.0\n"
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(text, "|", "`")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// problems returns where something is wrong in what files show, after checking how many
// blocks they have.
func problems(t *testing.T, blocks int, files map[string]string) (places []string) {
	t.Helper()
	n, wrong, err := doctest.Problems(write(t, files), ".")
	if err != nil {
		t.Fatal(err)
	}
	if n != blocks {
		t.Errorf("%d blocks were found, want %d", n, blocks)
	}
	for _, w := range wrong {
		file, rest, _ := strings.Cut(strings.TrimPrefix(w, "./"), ":")
		line, _, _ := strings.Cut(rest, ":")
		places = append(places, file+":"+line)
	}
	return places
}

const right = `# Statements

|||go
client := &http.Client{Timeout: time.Second} // may be left unused
resp, err := client.Get("https://example.com/")
if err != nil {
	return err
}
... read it ...
defer resp.Body.Close()
|||

<!-- compiled with: req *http.Request, try func(ctx context.Context, n int) error -->

|||go
err := try(req.Context(), 3)
_ = ctx.Err()
|||

A file:

|||go
package main

import "fmt"

func main() { fmt.Println("hello") }
|||

Declarations:

|||go
import "os"

func TestMain(m *testing.M) {
	status := m.Run()
	...
}

type files []*os.File
|||

No Go:

|||
x := := y
|||
|||text
x := := y
|||
`

func TestWhatIsRightCompiles(t *testing.T) {
	shown := `// Package shown is used like this:
//
//	s := shown.New(ctx) // by its own name
//
// or like that
//
//	go run ./shown (twice)
//	curl 'localhost?format=text'
//
// or by itself
//
//	go shown.New(ctx)
//
// or
//
//	curl 'localhost?format=text'
//
// and stands here:
//
//	client -- gateway -- server
package shown

import "context"

type Shown struct{}

func New(context.Context) *Shown { return nil }
`
	if places := problems(t, 6, map[string]string{"README.md": right, "shown.go": shown}); places != nil {
		t.Errorf("wrong in %q", places)
	}
}

func TestWhatIsWrongIsToldByFileAndLine(t *testing.T) {
	files := map[string]string{
		"README.md": `A name that nobody knows:

|||go
var d net.Dialer
conn, err := d.DialContent(ctx, "tcp", "example.com:80")
|||

and no Go at all:

|||go
conn, err := := dial()
|||
`,
		"sub/doc.go": `// Package sub is used like this:
//
//	a := 1
//
//	b := a.Length()
package sub
`,
		"sub/GUIDE.md": `
|||go
package main

func main() { x := 1 }
|||
`,
		"testdata/README.md": "|||go\n:=\n|||\n",
	}
	got := problems(t, 4, files)
	want := []string{"README.md:5", "README.md:11", "sub/GUIDE.md:5", "sub/doc.go:5"}
	slices.Sort(got)
	slices.Sort(want)
	if got = slices.Compact(got); !slices.Equal(got, want) {
		t.Errorf("wrong in %q, want %q", got, want)
	}
}

func TestWhatIsDeclaredForOthersIsCompiledToo(t *testing.T) {
	files := map[string]string{
		"shown.go": `package shown

// New makes one:
//
//	page := shown.New(n)
//
//doctest:compiled with: n int
func New(int) *Page { return nil }

// A Page is made:
//
//	page := shown.Now()
type Page struct {
	// Of is one of
	//
	//	[]int{1, 2}
	Of []int

	// own := nothing()
	own int
}

// Show is called by
//
//	page.Show(ctx)
//	page.Hide()
func (p *Page) Show(any) {}

// inside shows nobody
//
//	x := nothing()
func inside() {}
`,
		"program/main.go": `package main

// run is called by
//
//	x := nothing()
func run() {}
`,
	}
	got := problems(t, 5, files)
	slices.Sort(got)
	if want := []string{"program/main.go:5", "shown.go:12", "shown.go:26"}; !slices.Equal(got, want) {
		t.Errorf("wrong in %q, want %q", got, want)
	}
}

func TestABlockWithoutEndIsAnError(t *testing.T) {
	root := write(t, map[string]string{"README.md": "|||go\nx := 1\n"})
	if _, _, err := doctest.Problems(root, "."); err == nil || !strings.Contains(err.Error(), "README.md:2") {
		t.Errorf("error %v", err)
	}
}

func TestABlockIsCompiledByTheModuleThatItNames(t *testing.T) {
	files := map[string]string{
		"doc.go":         "// Package shown needs more:\n//\n//\tx := notHere()\n//\n//doctest:compiled in other with: n int\npackage shown\n",
		"README.md":      "<!-- compiled in other -->\n|||go\ny := notHere()\n|||\n",
		"other/go.mod":   "module example.com/other\n\ngo 1.26.0\n",
		"other/GUIDE.md": "|||go\nz := notHere()\n|||\n",
	}
	if places := problems(t, 0, files); places != nil {
		t.Errorf("the outer module has wrong %q", places)
	}
	n, wrong, err := doctest.Problems(write(t, files), "other")
	if err != nil {
		t.Fatal(err)
	}
	if n != 3 || len(wrong) != 3 {
		t.Errorf("the module has %d blocks, wrong is %q", n, wrong)
	}
}

func TestEveryModuleThatShowsGoHasItCompiled(t *testing.T) {
	const root = "../.."
	modules, err := doctest.Modules(root)
	if err != nil {
		t.Fatal(err)
	}
	for module := range modules {
		if !calls(t, filepath.Join(root, module), "doctest.Check(t)") {
			t.Errorf("module %s shows Go that no test of it has compiled: call doctest.Check there", module)
		}
	}
	if len(modules) < 3 {
		t.Errorf("only %d modules were found", len(modules))
	}
}

// calls reports whether a test below dir has this in its text.
func calls(t *testing.T, dir, what string) (found bool) {
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || found || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		found = bytes.Contains(text, []byte(what))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
