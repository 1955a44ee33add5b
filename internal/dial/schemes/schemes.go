// Package schemes lists the schemes of this program, as a value.
//
// It is not for choosing: internal/remote looks up what an endpoint names.
// A new scheme is added here, in one line.
package schemes

import (
	"slices"

	"github.com/berthbuild/berth/internal/dial"
	"github.com/berthbuild/berth/internal/dial/command"
	"github.com/berthbuild/berth/internal/dial/containercli"
	"github.com/berthbuild/berth/internal/dial/dockercontainer"
	"github.com/berthbuild/berth/internal/dial/dockerengine"
	"github.com/berthbuild/berth/internal/dial/kube"
	"github.com/berthbuild/berth/internal/dial/npipe"
	"github.com/berthbuild/berth/internal/dial/ssh"
	"github.com/berthbuild/berth/internal/dial/tcp"
	"github.com/berthbuild/berth/internal/dial/unix"
)

// All is every scheme, in the order in which they are documented.
func All(env dial.Env) dial.Registry {
	return slices.Concat(dial.Registry{
		unix.Scheme(),
		tcp.Scheme(env),
		ssh.Scheme(env),
		dockercontainer.Scheme(env),
		containercli.Podman(env),
		containercli.Nerdctl(env),
		command.Scheme(env),
		npipe.Scheme(),
		dockerengine.Scheme(env),
	}, kube.Schemes(env))
}
