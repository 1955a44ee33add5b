// Package remote turns an endpoint and its TLS options into a connection
// that has been proven to end at a BuildKit daemon, or says why there is none.
//
// It is not for parsing endpoints (internal/endpoint), for how a scheme is
// dialled (internal/dial), nor for choosing among daemons.
//
// Rules: a failure is classified by what happened: the dial's error, the TLS
// error or alert, the first bytes that the peer sent; never by the text of an
// error and never by gRPC's summary. What can heal is tried again within a
// budget; what cannot ends at once. Every end has a real cause, and cancelling
// the context ends everything promptly and leaves nothing behind. A Conn is
// one connection: when it is lost it stays lost, because a second one may end
// at another daemon, which knows nothing of the sessions of the first.
package remote
