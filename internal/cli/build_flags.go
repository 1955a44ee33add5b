package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/berthbuild/berth/internal/progress"
)

// buildOptions are build's flags as they were given.
type buildOptions struct {
	context       string
	file          string
	contexts      []string // --build-context
	tags          []string
	buildArgs     []string
	labels        []string
	annotations   []string
	target        string
	platforms     []string
	outputs       []string
	attests       []string
	provenance    string
	sbom          string
	secrets       []string
	ssh           []string
	cacheFrom     []string
	cacheTo       []string
	noCache       bool
	noCacheFilter []string
	pull          bool
	push          bool
	load          bool
	addHosts      []string
	network       string
	shmSize       string
	ulimits       []string
	cgroupParent  string
	resources     []string
	allow         []string
	call          string
	check         bool
	quiet         bool
	progress      string
	contextSync   string
	affinity      string
	iidFile       string
	metadataFile  string
	timeout       time.Duration

	given map[string]bool // the flags that were given, by name

	foreign    bool     // it is of a bake definition from elsewhere that is not trusted
	gitSecrets []string // the ids of secrets that berth added for fetching the definition's repository
	gitSSH     bool     // so was the key of ssh's default
}

func newBuildCmd(a *app) *cobra.Command {
	var o buildOptions
	cmd := &cobra.Command{
		Use:     "build [OPTIONS] PATH | URL | -",
		Aliases: []string{"b"},
		Short:   "Build an image, or files",
		Long: `Build from a Dockerfile and a context: a folder, the URL of a Git repository
or tarball that the daemon fetches itself, or "-" for a tar archive or a
Dockerfile on standard input.

Where the result goes:
  --load                     into Docker, found by DOCKER_HOST and docker's context
  --push                     to the registry that the tag names
  -o DIR                     the final stage's files, into a folder
  -o type=tar,dest=FILE      the same as an archive; "-" is standard output
  -o type=oci,dest=FILE      an image as an archive (or type=docker)
Without any of them the result stays in the daemon's cache.

Results, such as the image's id with -q, go to standard output; progress and
warnings to standard error.`,
		Example: `  berth build -t app --load .
  berth build --builder remote --platform linux/amd64,linux/arm64 -t registry.example.com/app:1 --push .
  berth build --secret id=token,src=$HOME/.token -o dist .`,
		Args: exactlyOneContext,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.context = args[0]
			o.given = map[string]bool{}
			cmd.Flags().Visit(func(f *pflag.Flag) { o.given[f.Name] = true })
			return a.traced(cmd, func(ctx context.Context) error { return a.runBuild(ctx, o) })
		},
	}
	f := cmd.Flags()
	o.addSourceFlags(f)
	o.addResultFlags(f)
	o.addCacheFlags(f)
	o.addRunFlags(f)
	o.addDisplayFlags(f)
	addIgnoredFlags(f, a.asPlugin)
	completeWith(cmd, "progress", completeWords("auto", "tty", "plain", "rawjson", "quiet", "none"))
	completeWith(cmd, "output", completeWords("type=local,dest=", "type=tar,dest=", "type=oci,dest=", "type=docker", "type=image", "type=registry"))
	completeWith(cmd, "call", completeWords("build", "check", "outline", "targets"))
	return cmd
}

// addSourceFlags are what is built.
func (o *buildOptions) addSourceFlags(f *pflag.FlagSet) {
	f.StringVarP(&o.file, "file", "f", "", `the Dockerfile (default: "PATH/Dockerfile"; "-" is standard input)`)
	f.StringArrayVar(&o.contexts, "build-context", nil, "another context by name (format: name=path)")
	f.StringArrayVar(&o.buildArgs, "build-arg", nil, "a build-time variable: NAME=VALUE, or NAME to take it from the environment")
	f.StringVar(&o.target, "target", "", "the stage to build")
	f.StringArrayVar(&o.platforms, "platform", nil, "what to build for, such as linux/amd64,linux/arm64")
	f.StringVar(&o.call, "call", "build", `how to evaluate the Dockerfile: build, check, outline or targets (format: "check,format=json")`)
	f.BoolVar(&o.check, "check", false, "shorthand for --call=check")
	f.StringVar(&o.call, "print", "build", "what --call was called first")
	hideFlag(f.Lookup("print"))
}

// addResultFlags are what comes out, and where it goes.
func (o *buildOptions) addResultFlags(f *pflag.FlagSet) {
	f.StringArrayVarP(&o.tags, "tag", "t", nil, "the image's name, as [registry/]repository[:tag]; may be repeated")
	f.StringArrayVar(&o.labels, "label", nil, "a label for the image: NAME=VALUE")
	f.StringArrayVar(&o.annotations, "annotation", nil, "an annotation for the image: [LEVEL[PLATFORM]:]NAME=VALUE")
	f.StringArrayVarP(&o.outputs, "output", "o", nil, `where the result goes (format: "type=local,dest=path")`)
	f.BoolVar(&o.push, "push", false, "push the image (--output=type=registry)")
	f.BoolVar(&o.load, "load", false, "load the image into Docker (--output=type=docker)")
	f.StringArrayVar(&o.attests, "attest", nil, `an attestation (format: "type=sbom,generator=image")`)
	f.StringVar(&o.provenance, "provenance", "", "shorthand for --attest=type=provenance")
	f.StringVar(&o.sbom, "sbom", "", "shorthand for --attest=type=sbom")
	f.StringVar(&o.iidFile, "iidfile", "", "write the image's id to a file")
	f.StringVar(&o.metadataFile, "metadata-file", "", "write the build's result to a file, in JSON")
}

// addCacheFlags are where earlier work is found, and kept.
func (o *buildOptions) addCacheFlags(f *pflag.FlagSet) {
	f.StringArrayVar(&o.cacheFrom, "cache-from", nil, `where else to look for cache (format: "user/app:cache", "type=local,src=path")`)
	f.StringArrayVar(&o.cacheTo, "cache-to", nil, `where to keep cache (format: "user/app:cache", "type=local,dest=path")`)
	f.BoolVar(&o.noCache, "no-cache", false, "do not use the cache")
	f.StringArrayVar(&o.noCacheFilter, "no-cache-filter", nil, "do not use the cache for these stages")
	f.BoolVar(&o.pull, "pull", false, "look for newer base images")
}

// addRunFlags are what the build's containers get and may do.
func (o *buildOptions) addRunFlags(f *pflag.FlagSet) {
	f.StringArrayVar(&o.secrets, "secret", nil, `a secret for the build (format: "id=mysecret[,src=/local/secret|,env=NAME]")`)
	f.StringArrayVar(&o.ssh, "ssh", nil, `an ssh agent or keys for the build (format: "default|<id>[=<socket>|<key>[,<key>]]")`)
	f.StringArrayVar(&o.allow, "allow", nil, `a right that the build wants (such as network.host, security.insecure)`)
	f.StringArrayVar(&o.addHosts, "add-host", nil, `a line for the containers' /etc/hosts (format: "host:ip")`)
	f.StringVar(&o.network, "network", "default", "the network of RUN instructions: default, none or host")
	f.StringVar(&o.shmSize, "shm-size", "", "the size of /dev/shm, such as 128m")
	f.StringArrayVar(&o.ulimits, "ulimit", nil, "a limit for the containers' processes (format: type=soft[:hard])")
	f.StringVar(&o.cgroupParent, "cgroup-parent", "", "the parent cgroup of the containers")
	f.StringArrayVar(&o.resources, "resource", nil, `a limit for the containers (format: "memory=2g", "cpu-quota=50000")`)
}

// addDisplayFlags are how berth itself behaves.
func (o *buildOptions) addDisplayFlags(f *pflag.FlagSet) {
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show no progress; print the image's id")
	f.StringVar(&o.affinity, "affinity", "", "what the build is known by where a node is chosen out of several: the same key, the same node (default: the context's Git remote, the Dockerfile and the target)")
	f.StringVar(&o.contextSync, "context-sync", "", "how local folders are sent: auto sends what the daemon lacks, full sends everything (default auto, or $BERTH_CONTEXT_SYNC)")
	f.StringVar(&o.progress, "progress", string(progress.Auto), "how to show progress: auto, tty, plain, rawjson, quiet or none")
	f.DurationVar(&o.timeout, "timeout", 0, "how long to wait for the daemon (default: the node's connect-timeout, 20s)")
}
