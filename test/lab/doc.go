//go:build e2e && linux

// Package lab starts the real things that the end-to-end tests build on: a
// BuildKit daemon, a Docker engine, a registry, certificates, and the berth
// binary itself, each in a temporary folder and on a free loopback port.
//
// It is not for plain `go test`: every file here, and every test that uses it,
// has the build tag e2e. It knows nothing of berth's own packages, so that a
// mistake there cannot hide itself.
//
// Rules:
//   - A package of tests that uses the lab has
//     `func TestMain(m *testing.M) { lab.Main(m) }`.
//   - The machine's own daemons, docker configuration and builders are never
//     read or touched.
//   - Nothing is left running or mounted: what a test starts ends with it, Main
//     fails the run when something is left, and a watchdog process cleans up
//     when the test binary is killed or runs into its timeout.
//   - What the machine lacks is asked for with Need: skipped loudly, and a
//     failure where CI=true.
//   - Nothing waits by sleeping for "long enough": readiness is asked for, with
//     a bound.
package lab
