package stdlib

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strings"
)

// A rule is one way in which the tests are changed.
type rule string

const (
	under   rule = "a client's Transport is asserted to be an *http.Transport"
	over    rule = "a test calls a method of an *http.Transport that natwise has too"
	client  rule = "an http.Client is made with an *http.Transport"
	helper  rule = "newClientServerTest ends with return cst"
	global  rule = "TestMain begins"
	dialed  rule = "a traced connection is asserted to be one that the test has dialed"
	severed rule = "connections are closed behind a Transport's back"
	pending rule = "hooks are set for pending dials"
	retried rule = "the log of a hook in http.Transport for retries is expected"
	cancels rule = "a test calls requests off by CancelRequest"
)

// expected reports whether the tests were recognized. There is one place for some of
// the rules, and there are dozens for others: if only few of them are found, the
// tests are written otherwise than they were, and what would be run says nothing.
func expected(found map[rule]int) error {
	least := map[rule]int{
		under: 40, over: 25, client: 8, pending: 4, cancels: 3,
		helper: 1, global: 1, dialed: 1, severed: 1, retried: 1,
	}
	var errs []error
	for _, r := range slices.Sorted(maps.Keys(least)) {
		n := found[r]
		if n < least[r] || least[r] == 1 && n > 1 {
			errs = append(errs, fmt.Errorf("the tests of net/http have changed: found %d places where %s", n, r))
		}
	}
	return errors.Join(errs...)
}

// rewrite returns a test file as it is over natwise, and how often each rule was
// used: never, where there was nothing to change. No line moves.
func rewrite(name string, source []byte) ([]byte, map[rule]int, error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, name, source, parser.SkipObjectResolution)
	if err != nil {
		return nil, nil, err
	}
	w := &rewriter{file: files.File(file.FileStart), found: make(map[rule]int)}
	if file.Name.Name != testPackage {
		return source, nil, nil // of package http itself, which httpx imports
	}
	for _, d := range file.Decls {
		if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil && len(f.Body.List) > 0 {
			w.function(f)
		}
	}
	return w.apply(source), w.found, nil
}

// A rewriter collects the changes to a file.
type rewriter struct {
	file  *token.File
	edits []edit
	found map[rule]int
}

// An edit puts a text into the place of some bytes. Of edits at the same place
// those of the outer expression come first.
type edit struct {
	from, to int
	text     string
}

func (w *rewriter) replace(from, to token.Pos, text string) {
	w.edits = append(w.edits, edit{w.file.Offset(from), w.file.Offset(to), text})
}

// insert adds a text, on the line that is there.
func (w *rewriter) insert(r rule, at token.Pos, text string) {
	w.found[r]++
	w.replace(at, at, text)
}

// call makes an expression the argument of a function.
func (w *rewriter) call(r rule, function string, e ast.Expr) {
	w.found[r]++
	w.replace(e.Pos(), e.Pos(), function+"(")
	w.replace(e.End(), e.End(), ")")
}

func (w *rewriter) apply(source []byte) []byte {
	slices.SortStableFunc(w.edits, func(a, b edit) int { return a.from - b.from })
	var b bytes.Buffer
	done := 0
	for _, e := range w.edits {
		b.Write(source[done:e.from])
		b.WriteString(e.text)
		done = e.to
	}
	b.Write(source[done:])
	return b.Bytes()
}

func (w *rewriter) function(f *ast.FuncDecl) {
	w.frame(f)
	known := transportsOf(f)
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			w.method(n, known)
			w.inside(n)
		case *ast.CompositeLit:
			w.literal(n, known)
		case *ast.TypeAssertExpr:
			w.assertion(n)
		}
		return true
	})
}

// frame adds statements at the beginning of some functions, and before the end of one.
func (w *rewriter) frame(f *ast.FuncDecl) {
	begin := f.Body.Lbrace + 1
	switch last, _ := f.Body.List[len(f.Body.List)-1].(*ast.ReturnStmt); {
	case f.Name.Name == "newClientServerTest" && last != nil && len(last.Results) == 1 && isNamed(last.Results[0], "cst"):
		w.insert(helper, last.Pos(), "cst.c.Transport = natwiseOver(cst.tr); ")
	case f.Name.Name == "TestMain":
		w.insert(global, begin, " http.DefaultTransport = natwiseOver(http.DefaultTransport.(*http.Transport));")
	}
	if calls(f, "ExportCloseTransportConnsAbruptly") {
		w.insert(severed, begin, " natwiseSevers.Store(true);")
	}
	if calls(f, "CancelRequest") {
		w.insert(cancels, begin, " natwiseCancels.Store(&ExportErrRequestCanceled);")
	}
}

// overMethods are called on the adapter of a Transport.
var overMethods = []string{
	"RoundTrip", "CloseIdleConnections",
	"IdleConnKeysForTesting", "IdleConnKeyCountForTesting", "IdleConnStrsForTesting", "IdleConnStrsForTesting_h2",
}

func (w *rewriter) method(call *ast.CallExpr, known variables) {
	m, ok := call.Fun.(*ast.SelectorExpr)
	switch {
	case !ok:
	case m.Sel.Name == "CancelRequest", slices.Contains(overMethods, m.Sel.Name) && known.have(m.X):
		w.call(over, "natwiseOver", m.X)
	}
}

// inside puts functions of the adapter in the place of those that look into an
// http.Transport.
func (w *rewriter) inside(call *ast.CallExpr) {
	switch {
	case isNamed(call.Fun, "SetPendingDialHooks"):
		w.insert(pending, call.Fun.Pos(), "natwise")
		w.replace(call.Lparen+1, call.Lparen+1, "SetPendingDialHooks, ")
	case isNamed(call.Fun, "ExportCloseTransportConnsAbruptly"):
		w.replace(call.Fun.Pos(), call.Fun.End(), "natwiseCloseConnsAbruptly")
	case len(call.Args) > 0 && says(call.Args[0], "\nRetried.\n"):
		w.call(retried, "natwiseWithoutRetried", call)
	}
}

func (w *rewriter) literal(l *ast.CompositeLit, known variables) {
	for _, value := range clientTransport(l) {
		if known.have(value) || makesCommon(value) {
			w.call(client, "natwiseOver", value)
		}
	}
}

func (w *rewriter) assertion(a *ast.TypeAssertExpr) {
	pointer, ok := a.Type.(*ast.StarExpr)
	switch {
	case !ok:
	case isType(pointer.X, "Transport"):
		w.found[under]++
		w.replace(a.X.Pos(), a.X.Pos(), "natwiseUnder(")
		w.replace(a.X.End(), a.End(), ")")
	case isType(pointer.X, "transportDialTesterConn"):
		w.call(dialed, "natwiseDialed", a.X)
	}
}

// calls reports whether f calls a function or a method of that name.
func calls(f *ast.FuncDecl, name string) (found bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok {
			m, method := call.Fun.(*ast.SelectorExpr)
			found = found || isNamed(call.Fun, name) || method && m.Sel.Name == name
		}
		return true
	})
	return found
}

// says reports whether e is a string in the source that contains s.
func says(e ast.Expr, s string) bool {
	l, ok := e.(*ast.BasicLit)
	return ok && l.Kind == token.STRING && strings.Contains(l.Value, s)
}

// isType reports whether e is the type of that name: the tests import net/http under
// its name, or with a dot.
func isType(e ast.Expr, name string) bool {
	if s, ok := e.(*ast.SelectorExpr); ok {
		return isNamed(s.X, "http") && s.Sel.Name == name
	}
	return isNamed(e, name)
}

func isNamed(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}
