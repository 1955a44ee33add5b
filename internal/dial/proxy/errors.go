package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/endpoint"
	"github.com/berthbuild/berth/internal/hint"
)

// unreached is a proxy that there is no connection to. What the system says
// about it is told by internal/remote, as for any other connection.
func (d dialer) unreached(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return &dial.Error{
		Class: dial.ProxyUnreachable, Heals: true, Err: err,
		Text:  fmt.Sprintf("the proxy %s cannot be reached", d.proxy),
		Tries: []string{"is the proxy's address right, and is it running? nc -vz " + hint.Quote(d.proxy.Host) + " " + d.proxy.Port},
	}
}

// silent is a proxy that took the connection and did not answer in time.
func (d dialer) silent(err error) error {
	return &dial.Error{
		Class: dial.ProxySilent, Heals: true, Err: err,
		Text:  fmt.Sprintf("the proxy %s does not answer in time", d.proxy),
		Tries: []string{"it may be hanging, or waiting in vain for " + d.address() + "; look at the proxy's log", d.byHand()},
	}
}

// notProxy is something else than a proxy of this kind.
func (d dialer) notProxy(what string, err error) error {
	other := "socks5:// instead of http://"
	if d.proxy.Kind == endpoint.ProxySOCKS5 || d.proxy.Kind == endpoint.ProxySOCKS5H {
		other = "http:// instead of socks5://"
	}
	return &dial.Error{
		Class: dial.ProxyProtocol, Err: err,
		Text:  fmt.Sprintf("%s is no %s proxy: %s", d.proxy.Address(), d.proxy.Kind, what),
		Tries: []string{"is it another kind of proxy? " + other},
	}
}

// broken is an answer that could not be read to its end.
func (d dialer) broken(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) { // talk knows why
		return err
	}
	if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		var op *net.OpError
		if !errors.As(err, &op) {
			return d.notProxy("its answer makes no sense", err)
		}
	}
	return &dial.Error{
		Class: dial.ProxyGateway, Heals: true, Err: err,
		Text:  fmt.Sprintf("the proxy %s hangs up instead of an answer", d.proxy),
		Tries: []string{"look at the proxy's log", d.byHand()},
	}
}

// wantsLogin is a proxy that does not let us through without one.
func (d dialer) wantsLogin(answer string) error {
	e := &dial.Error{Class: dial.ProxyAuth}
	if d.proxy.User == "" {
		e.Text = fmt.Sprintf("the proxy %s demands a login (%s)", d.proxy, answer)
		e.Tries = []string{fmt.Sprintf("give it with the proxy: --driver-opt proxy=%s://USER:PASSWORD@%s", d.proxy.Kind, d.proxy.Address()),
			"or have it in the environment only: --driver-opt proxy=env and HTTPS_PROXY"}
		return e
	}
	e.Text = fmt.Sprintf("the proxy %s does not accept the login of %s (%s)", d.proxy, d.proxy.User, answer)
	e.Tries = []string{"is the password right? special characters in it are percent-encoded: / is %2F, @ is %40"}
	return e
}

// refused is a proxy that does not want to go there.
func (d dialer) refused(answer string) error {
	return &dial.Error{
		Class: dial.ProxyRefused,
		Text:  fmt.Sprintf("the proxy %s refuses to connect to %s (%s)", d.proxy, d.address(), answer),
		Tries: []string{"proxies often permit port 443 only; its owner must permit port " + d.to.Port, d.byHand()},
	}
}

// gateway is a daemon that the proxy cannot reach.
func (d dialer) gateway(answer string) error {
	return &dial.Error{
		Class: dial.ProxyGateway, Heals: true,
		Text: fmt.Sprintf("the daemon cannot be reached from the proxy %s (%s)", d.proxy, answer),
		Tries: []string{"does " + d.address() + " name the daemon where the proxy is, and is it running there?",
			"to go without the proxy, leave the driver option out, or name the host in NO_PROXY"},
	}
}

func (d dialer) address() string { return net.JoinHostPort(d.to.Hostname(), d.to.Port) }

// byHand is a command that shows the same without berth.
func (d dialer) byHand() string {
	return fmt.Sprintf("curl -v -p -x %s telnet://%s", hint.Quote(d.proxy.String()), hint.Quote(d.address()))
}
