package doctest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
)

// standing are variables that a reader knows how to come by.
var standing = []string{"ctx context.Context", "t *testing.T"}

// source returns a file that compiles if b is right. What is wrong in it is told by the
// line of b's own file, below root.
func (b block) source(root string, imports map[string]string) []byte {
	const head = "package block\n"
	text := fmt.Sprintf("//line %s:%d\n%s", filepath.Join(root, b.file), b.line, fill(b.text))
	if parses(text, parser.PackageClauseOnly) { // a whole file
		return []byte(text)
	}
	if !parses(head+text, 0) { // no declarations, so statements
		e, _ := parser.ParseExpr(b.text)
		if _, ok := e.(*ast.CompositeLit); ok { // what a field may be set to
			text = strings.Replace(text, b.text, "_ = "+b.text, 1)
		}
		text = "func _() (_ error) {\n" + text + "\nreturn }\n"
	}
	text += "\n"
	for _, v := range append(variables(b.with), b.missing(head+text)...) {
		text += "var " + v + "\n"
	}
	var src bytes.Buffer
	src.WriteString(head)
	for name := range free(head + text) {
		if path, known := imports[name]; known {
			fmt.Fprintf(&src, "import %s %q\n", name, path)
		}
	}
	src.WriteString(text)
	return used(src.Bytes())
}

// variables splits what is written as parameters: each is a name and a type.
func variables(with string) (vars []string) {
	const head = "func("
	e, _ := parser.ParseExpr(head + with + ")")
	fn, ok := e.(*ast.FuncType)
	if !ok {
		return []string{with} // the compiler will say what is wrong
	}
	for _, f := range fn.Params.List {
		typ := (head + with)[f.Type.Pos()-1 : f.Type.End()-1]
		for _, name := range f.Names {
			vars = append(vars, name.Name+" "+typ)
		}
	}
	return vars
}

// missing returns the variables that src needs of those that a reader knows how to come by.
func (b block) missing(src string) (vars []string) {
	have := func(name string) bool {
		return slices.ContainsFunc(variables(b.with), func(v string) bool { return strings.HasPrefix(v, name+" ") })
	}
	needs := free(src)
	for _, v := range append(variables(b.self), standing...) {
		if name, _, _ := strings.Cut(v, " "); needs[name] && !have(name) {
			vars = append(vars, v)
		}
	}
	return vars
}

func parses(src string, mode parser.Mode) bool {
	_, err := parser.ParseFile(token.NewFileSet(), "", src, mode)
	return err == nil
}

// fill takes out the lines that are for the reader to fill in.
func fill(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(strings.TrimSpace(l), "...") {
			lines[i] = ""
		}
	}
	return strings.Join(lines, "\n")
}

// free returns the names in src that nothing in it declares or imports.
func free(src string) map[string]bool {
	names := make(map[string]bool)
	f, err := parser.ParseFile(token.NewFileSet(), "", src, 0)
	if err != nil {
		return names // the compiler will say what is wrong
	}
	for _, id := range f.Unresolved {
		names[id.Name] = true
	}
	for _, i := range f.Imports { // what is imported under its own name
		delete(names, strings.Trim(i.Path.Value[strings.LastIndexByte(i.Path.Value, '/')+1:], `"`))
	}
	return names
}

// used returns src with a use of each variable that a function without results begins with:
// what the reader does with it is not shown.
func used(src []byte) []byte {
	files := token.NewFileSet()
	f, err := parser.ParseFile(files, "", src, parser.SkipObjectResolution)
	if err != nil {
		return src
	}
	for _, d := range slices.Backward(f.Decls) { // so that offsets stay
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil || fn.Type.Results != nil && fn.Name.Name != "_" {
			continue
		}
		end := files.PositionFor(fn.Body.Rbrace, false).Offset
		if n := len(fn.Body.List); n > 0 && fn.Name.Name == "_" {
			end = files.PositionFor(fn.Body.List[n-1].Pos(), false).Offset // the return that source has added
		}
		for _, name := range declared(fn.Body) {
			src = slices.Insert(src, end, []byte("_ = "+name+"; ")...)
		}
	}
	return src
}

// declared returns the variables of a body, but not those of blocks in it.
func declared(body *ast.BlockStmt) (names []string) {
	add := func(e ast.Expr) {
		if id, ok := e.(*ast.Ident); ok && id.Name != "_" && !slices.Contains(names, id.Name) {
			names = append(names, id.Name)
		}
	}
	for _, s := range body.List {
		switch s := s.(type) {
		case *ast.AssignStmt:
			for _, e := range s.Lhs {
				if s.Tok == token.DEFINE {
					add(e)
				}
			}
		case *ast.DeclStmt:
			for _, spec := range s.Decl.(*ast.GenDecl).Specs {
				if v, ok := spec.(*ast.ValueSpec); ok && s.Decl.(*ast.GenDecl).Tok == token.VAR {
					for _, id := range v.Names {
						add(id)
					}
				}
			}
		}
	}
	return names
}
