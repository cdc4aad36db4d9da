// Package doctest compiles the Go that documentation shows, so that what a reader copies
// works. It takes each block marked as go in each Markdown file, and each block of code in
// the comment of a package and of what it exports, and has the go command compile it in the
// module where it stands:
//
//	func TestDocumentation(t *testing.T) { doctest.Check(t) }
//
// A block may be a whole file, declarations, or statements. What it imports is found by the
// names that it uses. Its variables need not be used, statements may return, with an error or
// without, and a line that begins with "..." is for the reader to fill in. In a comment
// a block is taken for a command if it begins with two words, such as go run, and for a
// drawing if it has neither parentheses nor braces nor an equals sign.
//
// A context named ctx and a *testing.T named t are there if needed; for a method, its receiver
// by the name of the type, as page is a *debug.Page. Other names that a reader has to bring are
// declared in a comment, which is not shown: before the block in Markdown, else at the end of
// the comment.
//
//	<!-- compiled with: req *http.Request, path netpath.Profile -->
//
// becomes in Go
//
//	//doctest:compiled with: req *http.Request, path netpath.Profile
//
// Between "compiled" and "with:" may stand in which other module that is to happen, if the
// block needs what that one requires: "in examples/databases".
package doctest
