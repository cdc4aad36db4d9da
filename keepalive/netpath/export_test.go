package netpath

// DetectIn is Detect with an environment and a firmware table of the test's own.
var DetectIn = detect
