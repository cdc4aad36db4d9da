// Command suites runs the drivers' own tests over natwise, against real servers: those of
// the versions that this module requires, from the module cache. Of a copy the calls that
// open a DB are changed, and nothing else; none of it is kept here.
//
// Each test runs unwrapped first. One that fails then says nothing of natwise: it wants
// something of its server, or of its time, that is not here. One that only fails over
// natwise is run once more by itself. Where it fails again it has to be among the
// differences, with a reason.
// With -full those that pass run once more where no connection comes to be: who passes
// then, too, parses something or talks to a server of its own.
//
// What is counted are tests without subtests, and the subtests of the others.
package main
