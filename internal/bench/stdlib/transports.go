package stdlib

import (
	"go/ast"
	"go/token"
	"slices"
)

// common are the fields of http.Transport that an adapter has a counterpart for.
var common = []string{
	"Dial", "DialContext", "TLSClientConfig", "TLSHandshakeTimeout", "DisableKeepAlives", "DisableCompression",
	"MaxConnsPerHost", "IdleConnTimeout", "ResponseHeaderTimeout", "ExpectContinueTimeout", "MaxResponseHeaderBytes",
	"Proxy", "ProxyConnectHeader", "GetProxyConnectHeader", "OnProxyConnectResponse",
	"ForceAttemptHTTP2", "HTTP2", "Protocols",
}

// variables are those of a function that hold an *http.Transport whose requests are
// to go over natwise.
type variables map[string]bool

// transportsOf returns them: those that are set to a client's Transport, and those
// that hold one which f has made itself, if f uses nothing of it but what is common.
// The others are what f is about, such as protocols that it registers.
func transportsOf(f *ast.FuncDecl) variables {
	known, made := make(variables), make(variables)
	ast.Inspect(f, func(n ast.Node) bool {
		if name, value, ok := assignment(n); ok && isClients(value) {
			known[name] = true
		} else if ok && makesCommon(value) {
			made[name] = true
		}
		return true
	})
	for name := range made {
		if uses(f, name) == commonUses(f, name) {
			known[name] = true
		}
	}
	return known
}

// uses counts how often a function says a name.
func uses(f *ast.FuncDecl, name string) (n int) {
	ast.Inspect(f, func(node ast.Node) bool {
		if id, ok := node.(*ast.Ident); ok && id.Name == name {
			n++
		}
		return true
	})
	return n
}

// commonUses counts those of them that are assignments, or uses of what is common,
// or the Transport of a Client.
func commonUses(f *ast.FuncDecl, name string) (n int) {
	ast.Inspect(f, func(node ast.Node) bool {
		if set, value, ok := assignment(node); ok && set == name && makesCommon(value) {
			n++
		}
		if s, ok := node.(*ast.SelectorExpr); ok && isNamed(s.X, name) && (slices.Contains(common, s.Sel.Name) || slices.Contains(overMethods, s.Sel.Name)) {
			n++
		}
		if l, ok := node.(*ast.CompositeLit); ok {
			for _, value := range clientTransport(l) {
				if isNamed(value, name) {
					n++
				}
			}
		}
		return true
	})
	return n
}

// have reports whether e is such a variable or a client's Transport itself.
func (v variables) have(e ast.Expr) bool {
	id, ok := e.(*ast.Ident)
	return ok && v[id.Name] || isClients(e)
}

// isClients reports whether e is the Transport of a client, under its adapter: an
// assertion to be an *http.Transport, or the field tr of a clientServerTest.
func isClients(e ast.Expr) bool {
	s, ok := e.(*ast.SelectorExpr)
	return ok && s.Sel.Name == "tr" || isAsserted(e)
}

// assignment returns what is assigned to which variable.
func assignment(n ast.Node) (name string, value ast.Expr, ok bool) {
	a, ok := n.(*ast.AssignStmt)
	if !ok || len(a.Lhs) != 1 || len(a.Rhs) != 1 {
		return "", nil, false
	}
	v, ok := a.Lhs[0].(*ast.Ident)
	if !ok {
		return "", nil, false
	}
	return v.Name, a.Rhs[0], true
}

// clientTransport returns the Transport that a Client is made with, if l makes one.
func clientTransport(l *ast.CompositeLit) []ast.Expr {
	if !isType(l.Type, "Client") {
		return nil
	}
	var values []ast.Expr
	for _, e := range l.Elts {
		if field, ok := e.(*ast.KeyValueExpr); ok && isNamed(field.Key, "Transport") {
			values = append(values, field.Value)
		}
	}
	return values
}

// makesCommon reports whether e is &Transport{...} with common fields only, or
// new(Transport).
func makesCommon(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.UnaryExpr:
		l, ok := e.X.(*ast.CompositeLit)
		return ok && e.Op == token.AND && isType(l.Type, "Transport") && !slices.ContainsFunc(l.Elts, uncommon)
	case *ast.CallExpr:
		return isNamed(e.Fun, "new") && len(e.Args) == 1 && isType(e.Args[0], "Transport")
	}
	return false
}

// uncommon reports whether an element of a Transport's literal sets another field.
func uncommon(e ast.Expr) bool {
	field, ok := e.(*ast.KeyValueExpr)
	return !ok || !slices.ContainsFunc(common, func(name string) bool { return isNamed(field.Key, name) })
}

func isAsserted(e ast.Expr) bool {
	a, ok := e.(*ast.TypeAssertExpr)
	if !ok {
		return false
	}
	pointer, ok := a.Type.(*ast.StarExpr)
	return ok && isType(pointer.X, "Transport")
}
