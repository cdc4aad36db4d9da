package doctest

import (
	"fmt"
	"go/ast"
	"go/doc/comment"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// A block is Go that is shown to readers.
type block struct {
	file   string // where it stands, relative to the repository
	line   int    // of its first line
	text   string
	module string // the directory of the module that compiles it, relative to the repository
	with   string // what is declared besides, as parameters are
	self   string // the receiver of the method that it documents, as a parameter is
}

// find returns all blocks below root.
func find(root string) (blocks []block, err error) {
	module := make(map[string]string) // of each directory
	err = filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if e.IsDir() {
			if name := e.Name(); rel != "." && (name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
				return filepath.SkipDir
			}
			module[rel] = module[filepath.Dir(rel)]
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil {
				module[rel] = rel
			}
			return nil
		}
		var read func(file string, src []byte) ([]block, error)
		switch {
		case strings.HasSuffix(rel, ".md"):
			read = inMarkdown
		case strings.HasSuffix(rel, ".go") && !strings.HasSuffix(rel, "_test.go"):
			read = inComments
		default:
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		found, err := read(rel, src)
		for _, b := range found {
			if b.module == "" {
				b.module = module[filepath.Dir(rel)]
			}
			blocks = append(blocks, b)
		}
		return err
	})
	return blocks, err
}

// how is what a comment says of the blocks that it belongs to.
var how = regexp.MustCompile(`^(?:<!-- |//doctest:)compiled(?: in (\S+))?(?: with: (.*?))?(?: -->)?$`)

// obey sets what a line says that matches how.
func (b *block) obey(line string) {
	if said := how.FindStringSubmatch(line); said != nil {
		b.module, b.with = filepath.FromSlash(said[1]), said[2]
	}
}

// inMarkdown returns what stands between ```go and ```.
func inMarkdown(file string, src []byte) (blocks []block, err error) {
	var b *block    // the one that is open
	var last string // line that was not blank
	for i, line := range strings.Split(string(src), "\n") {
		switch trimmed := strings.TrimSpace(line); {
		case b != nil && trimmed == "```":
			blocks = append(blocks, *b)
			b, last = nil, ""
		case b != nil:
			b.text += line + "\n"
		case trimmed == "```go" || strings.HasPrefix(trimmed, "```go "):
			b = &block{file: file, line: i + 2}
			b.obey(last)
		case trimmed != "":
			last = trimmed
		}
	}
	if b != nil {
		return nil, fmt.Errorf("%s:%d: the block has no end", file, b.line)
	}
	return blocks, nil
}

// inComments returns the code in the comments of a package clause and of what is declared
// for others; in a program, of all that is declared.
func inComments(file string, src []byte) (blocks []block, err error) {
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, file, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	if f.Name.Name != "main" {
		ast.FileExports(f)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if doc := docOf(n); doc != nil {
			for _, b := range inComment(files, doc) {
				b.file = file
				if fn, ok := n.(*ast.FuncDecl); ok && fn.Recv != nil {
					b.self = receiver(f.Name.Name, fn.Recv.List[0].Type)
				}
				blocks = append(blocks, b)
			}
		}
		return true
	})
	return blocks, nil
}

// docOf returns the comment of what is declared.
func docOf(n ast.Node) *ast.CommentGroup {
	switch n := n.(type) {
	case *ast.File:
		return n.Doc
	case *ast.GenDecl:
		return n.Doc
	case *ast.FuncDecl:
		return n.Doc
	case *ast.TypeSpec:
		return n.Doc
	case *ast.ValueSpec:
		return n.Doc
	case *ast.Field:
		return n.Doc
	}
	return nil
}

// receiver is how readers have one: by the name of its type in lower case.
func receiver(pkg string, typ ast.Expr) string {
	star := ""
	if p, ok := typ.(*ast.StarExpr); ok {
		star, typ = "*", p.X
	}
	id, ok := typ.(*ast.Ident)
	if !ok || strings.EqualFold(id.Name, pkg) { // of which type it is has to be said, or its name is the package's
		return ""
	}
	return strings.ToLower(id.Name) + " " + star + pkg + "." + id.Name
}

// inComment returns the code in a comment.
func inComment(files *token.FileSet, doc *ast.CommentGroup) (blocks []block) {
	lines := doc.List
	var all block
	for _, l := range lines {
		all.obey(l.Text)
	}
	for _, part := range new(comment.Parser).Parse(doc.Text()).Content {
		code, ok := part.(*comment.Code)
		if !ok || !isGo(code.Text) {
			continue
		}
		b := all
		b.text = code.Text
		lines = startingWith(lines, code.Text)
		b.line = files.Position(lines[0].Pos()).Line
		blocks = append(blocks, b)
	}
	return blocks
}

// startingWith returns the rest of a comment, from where text begins.
func startingWith(lines []*ast.Comment, text string) []*ast.Comment {
	first, _, _ := strings.Cut(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l.Text, "//\t") && strings.TrimSpace(l.Text[2:]) == strings.TrimSpace(first) {
			return lines[i:]
		}
	}
	return lines
}

// isGo tells Go from commands and drawings.
func isGo(text string) bool {
	if strings.HasPrefix(text, "<!-- ") || !strings.ContainsAny(text, "(){}=") {
		return false
	}
	first, _, _ := strings.Cut(text, "\n")
	word, rest, more := strings.Cut(first, " ")
	switch {
	case word == "go": // a statement, or the command
		call, _, _ := strings.Cut(rest, " ")
		return strings.Contains(call, "(")
	case token.IsIdentifier(word) && more: // an assignment, or a command
		return assignment.MatchString(rest)
	}
	return true
}

var assignment = regexp.MustCompile(`^\S?=`)
