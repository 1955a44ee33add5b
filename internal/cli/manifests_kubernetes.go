package cli

import (
	"path/filepath"
	"time"

	"github.com/berthbuild/berth/internal/certs"
	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/manifests"
	"github.com/spf13/cobra"
)

type manifestsKubernetesOptions struct {
	manifests.Options
	access string
	certs  string
}

func newManifestsKubernetesCmd(a *app) *cobra.Command {
	var o manifestsKubernetesOptions
	cmd := &cobra.Command{
		Use:     "kubernetes [OPTIONS]",
		Aliases: []string{"k8s"},
		Short:   "Print a StatefulSet of BuildKit daemons, and all around it",
		Long: `Print the objects with which a Kubernetes cluster runs BuildKit daemons, to be
applied as they are: a StatefulSet whose pods keep their caches on volumes of
their own, its Service and disruption budget, buildkitd's configuration, and a
service account with the rights that berth needs, and no other. The line that
makes a builder of them is in the comment on top.

--access exec, the default, lets clients run buildctl in the pods through the API
server: no port is open and no certificate is needed, but who may do that in a
privileged pod can become root on its node. With port-forward, buildkitd listens
on the pod's loopback interface, in plain TCP. With none, nobody is given a right.

--certs takes a folder that "berth certs create" made, and has the daemons listen
on the cluster's network with mutual TLS. The text then holds private keys.

A pod that is taken away gets no new builds, and has the time of --drain for those
that run.`,
		Example: `  berth manifests kubernetes --namespace build | kubectl apply -f -
  berth manifests kubernetes --replicas 5 --rootless --storage 200Gi --storage-class fast
  berth certs create '*.buildkitd.build.svc'
  berth manifests kubernetes --namespace build --certs .certs --access none`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			return a.runManifestsKubernetes(o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.Name, "name", manifests.DefaultName, "the name of the objects, and of the builder")
	f.StringVarP(&o.Namespace, "namespace", "n", manifests.DefaultNamespace, "their namespace, which has to be there")
	f.IntVar(&o.Replicas, "replicas", manifests.DefaultReplicas, "how many daemons")
	f.StringVar(&o.Image, "image", "", `the image of BuildKit (default "`+manifests.DefaultImage(false)+`", with --rootless "`+manifests.DefaultImage(true)+`")`)
	f.BoolVar(&o.Rootless, "rootless", false, "run without root and without privileges")
	f.StringVar(&o.certs, "certs", "", "a folder of certificates: listen on the cluster's network with mutual TLS")
	f.StringVar(&o.access, "access", manifests.Accesses()[0], "how clients get in through the API server: exec, port-forward or none")
	f.IntVar(&o.Port, "port", manifests.DefaultPort, "the TCP port, where there is one")
	f.StringVar(&o.Storage, "storage", manifests.DefaultStorage, "the size of each daemon's cache volume")
	f.StringVar(&o.StorageClass, "storage-class", "", "its class (default: the cluster's)")
	f.IntVar(&o.Parallelism, "max-parallelism", 0, "how many steps a daemon runs at once, 0 for no limit")
	f.StringSliceVar(&o.Requests, "requests", nil, `what each daemon is sure to get (format: "cpu=2,memory=4Gi")`)
	f.StringSliceVar(&o.Limits, "limits", nil, `what each daemon may use at most (format: "memory=16Gi")`)
	f.StringSliceVar(&o.NodeSelector, "node-selector", nil, `only nodes with this label (format: "KEY=VALUE")`)
	f.StringSliceVar(&o.Tolerations, "toleration", nil, `nodes with this taint, too (format: "KEY[=VALUE][:EFFECT]")`)
	f.DurationVar(&o.Drain, "drain", manifests.DefaultDrain, "how long a running build may go on when its pod is taken away")
	completeWith(cmd, "access", completeWords(manifests.Accesses()...))
	return cmd
}

func (a *app) runManifestsKubernetes(o manifestsKubernetesOptions) error {
	o.Access = manifests.Access(o.access)
	if o.certs != "" {
		tls, err := a.manifestTLS(o)
		if err != nil {
			return hint.Wrap(err, "--certs")
		}
		o.TLS = tls
	}
	text, err := manifests.Kubernetes(o.Options)
	if err != nil {
		return err
	}
	_, err = a.io.Out.Write(text)
	return err
}

// manifestTLS makes Secrets of a folder of certificates.
func (a *app) manifestTLS(o manifestsKubernetesOptions) (*manifests.TLS, error) {
	dir, err := a.certPath(o.certs)
	if err != nil {
		return nil, err
	}
	daemon, client, err := certs.ForKubernetes(dir, time.Now())
	if err != nil {
		return nil, err
	}
	t := &manifests.TLS{Names: daemon.Names, DriverOpt: csvFields("tlsdir=" + filepath.Join(o.certs, client.Folder))}
	for _, b := range []certs.Bundle{daemon, client} {
		t.Secrets = append(t.Secrets, b.Secret(manifests.SecretName(o.Name, b.Folder), o.Namespace))
	}
	return t, nil
}
