package ssh

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/endpoint"
)

// The stages of this scheme, besides those of every connection.
const (
	stageConfig  = "config"   // ssh_config, and the route that it gives
	stageHostKey = "host-key" // is it the right machine
	stageLogin   = "login"    // does it let us in
	stageForward = "forward"  // does it let us to the socket
)

// stages is the way to the last machine of a route; each jump host adds a
// connect, a host-key and a login of its own.
func stages(endpoint.Endpoint) []string {
	return []string{stageConfig, dial.StageResolve, dial.StageConnect, stageHostKey, stageLogin, stageForward}
}

// routeText names the machines of a route.
func routeText(hops []*settings) string {
	var names []string
	for _, h := range hops {
		names = append(names, h.user+"@"+h.address())
	}
	return strings.Join(names, ", then ")
}

// sightings is what a tracer is told of one login; nil where there is none.
type sightings struct {
	login   *login
	began   time.Time
	checked time.Time // when the host key had been judged
	key     string    // the host's
	used    string    // what of ours signed
}

func watchLogin(ctx context.Context, a *login) *sightings {
	if !dial.Traced(ctx) {
		return nil
	}
	return &sightings{login: a, began: time.Now()}
}

// hostKey notes the key that check judges.
func (w *sightings) hostKey(check ssh.HostKeyCallback) ssh.HostKeyCallback {
	if w == nil {
		return check
	}
	return func(name string, remote net.Addr, key ssh.PublicKey) error {
		err := check(name, remote, key)
		w.key, w.checked = shown(key), time.Now()
		return err
	}
}

// signers notes which key signs: the one that the server takes.
func (w *sightings) signers(k *keyring) []ssh.Signer {
	if w == nil {
		return k.signers
	}
	all := make([]ssh.Signer, len(k.signers))
	for i, s := range k.signers {
		note := func() { w.used = k.offered[i] }
		switch s := s.(type) { // as x/crypto tells them apart
		case ssh.MultiAlgorithmSigner:
			all[i] = notedMulti{s, note}
		case ssh.AlgorithmSigner:
			all[i] = noted{s, note}
		default:
			all[i] = s
		}
	}
	return all
}

type noted struct {
	ssh.AlgorithmSigner
	note func()
}

// SignWithAlgorithm implements ssh.AlgorithmSigner.
func (n noted) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	n.note()
	return n.AlgorithmSigner.SignWithAlgorithm(rand, data, algorithm)
}

type notedMulti struct {
	ssh.MultiAlgorithmSigner
	note func()
}

// SignWithAlgorithm implements ssh.AlgorithmSigner.
func (n notedMulti) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	n.note()
	return n.MultiAlgorithmSigner.SignWithAlgorithm(rand, data, algorithm)
}

// tell reports the two stages of a login that ended with err.
func (w *sightings) tell(ctx context.Context, err error) {
	if w == nil {
		return
	}
	a := w.login
	who := ""
	if a.s.jump {
		who = "jump host " + a.s.host + ": "
	}
	host := dial.Stage{Name: stageHostKey, Text: who + w.key, Took: w.checked.Sub(w.began)}
	if !a.host.ok {
		host.Took, host.Err = time.Since(w.began), err
		dial.Report(ctx, host)
		return
	}
	dial.Report(ctx, host)
	text := fmt.Sprintf("%sas %s with %s", who, a.s.user, w.used)
	if w.used == "" {
		text = fmt.Sprintf("%sas %s, without a key", who, a.s.user)
	}
	dial.Report(ctx, dial.Stage{Name: stageLogin, Text: text, Took: time.Since(w.checked), Err: err})
}
