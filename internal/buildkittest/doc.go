// Package buildkittest is a BuildKit daemon for tests, inside the test's own
// process: the control API over real sockets, with and without TLS, sessions
// included, and faults on demand.
//
// It is not a builder: a Solve runs a function that the test gives. Real
// daemons are the business of test/lab.
//
// Rules: everything listens on loopback or on a socket in a temporary folder
// and is gone after Close (New and Raw do that by t.Cleanup). Start and the
// certificates work without a testing.TB, so that scripts can use them.
package buildkittest
