package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/berthbuild/berth/internal/ui"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A peerFlag is one flag of buildx's, and what it is here.
type peerFlag struct {
	name    string
	verdict string // one of the constants below
	because string // what is better, or why it is not here; empty for same
	proof   string // the end-to-end test that shows it; empty where it is not here
}

const (
	same    = "same"
	better  = "better"
	partly  = "in part"
	notHere = "not here"
)

// peerBuildFlags are those of `docker buildx build`, v0.38, as its reference
// lists them.
func peerBuildFlags() []peerFlag {
	return []peerFlag{
		{"add-host", same, "", "TestBuildContainerFlags"},
		{"allow", better, "a right that is not known is refused before the daemon is asked", "TestBuildRights"},
		{"annotation", same, "", "TestBuildAnnotations"},
		{"attest", same, "", "TestProvenance"},
		{"build-arg", same, "", "TestBuildArgumentsLabelsTarget"},
		{"build-context", better, "two folders of one name never share a copy on the daemon", "TestNamedContexts"},
		{"builder", better, "also the URL of an endpoint, without create", "TestMainJob"},
		{"cache-from", same, "", "TestRegistryCache"},
		{"cache-to", same, "", "TestRegistryCache"},
		{"call", same, "", "TestCallReports"},
		{"cgroup-parent", same, "", "TestBuildContainerFlags"},
		{"check", same, "", "TestCallReports"},
		{"debug", same, "", "TestMainJob"},
		{"file", better, "two Dockerfiles of one size and time are told apart", "TestBuildDockerfileAnywhere"},
		{"iidfile", better, "written whole or not at all", "TestBuildIDsAndMetadata"},
		{"label", same, "", "TestBuildArgumentsLabelsTarget"},
		{"load", better, "only what the engine lacks is sent", "TestLoadMatrix"},
		{"metadata-file", better, "written whole or not at all", "TestMetadataProvenance"},
		{"network", same, "", "TestBuildContainerFlags"},
		{"no-cache", same, "", "TestBuildNoCacheAndDefaultLoad"},
		{"no-cache-filter", same, "", "TestBuildNoCacheFilter"},
		{"output", better, "nothing half-written is left under its name; several nodes write one archive", "TestBuildFiles"},
		{"platform", better, "a platform that no node offers is refused, saying which node offers what", "TestNodesOfDifferentPlatforms"},
		{"policy", notHere, "it is a language of its own for what a build may use, which runs in the client", ""},
		{"progress", same, "", "TestBuildProgressModes"},
		{"provenance", same, "", "TestProvenance"},
		{"pull", same, "", "TestBuildNoCacheAndDefaultLoad"},
		{"push", same, "", "TestBuildPush"},
		{"quiet", better, "a failed step's last lines are shown", "TestDisplayOfFailure"},
		{"resource", same, "", "TestBuildContainerFlags"},
		{"sbom", same, "", "TestSBOM"},
		{"secret", better, "one that is not there is refused before the daemon is asked", "TestBuildSecretsAndSSH"},
		{"shm-size", same, "", "TestBuildContainerFlags"},
		{"ssh", better, "a missing agent is refused before the daemon is asked", "TestBuildSecretsAndSSH"},
		{"tag", same, "", "TestBuildArgumentsLabelsTarget"},
		{"target", same, "", "TestBuildArgumentsLabelsTarget"},
		{"ulimit", same, "", "TestBuildContainerFlags"},
	}
}

// peerBakeFlags are those of `docker buildx bake`, v0.38, as its help lists them.
func peerBakeFlags() []peerFlag {
	return []peerFlag{
		{"allow", better, "env=NAME grants a definition from elsewhere a variable as a secret, or for a cache; a right that is not known is refused", "TestBakeRights"},
		{"builder", better, "also the URL of an endpoint, without create", "TestMainJob"},
		{"call", better, "contexts that are other targets are known to the frontend; a target that fails does not take the others' reports away", "TestBakeCallLinked"},
		{"check", better, "as of --call", "TestBakeCallLinked"},
		{"debug", same, "", "TestMainJob"},
		{"file", better, "Compose files are held within bounds, and read nothing outside of the working directory without a grant", "TestBakeCompose"},
		{"jobs", same, "", "TestBakeJobs"},
		{"list", same, "", "TestBakeShorthands"},
		{"load", same, "", "TestBakeShorthands"},
		{"metadata-file", better, "written whole or not at all", "TestBakeLinks"},
		{"no-cache", same, "", "TestBakeShorthands"},
		{"policy", partly, "disabled=true is taken, and the rest refused, because it is a language of its own for what a build may use, which runs in the client; a target that has one is refused without it", "TestBakeShorthands"},
		{"print", same, "", "TestBakeCompose"},
		{"progress", same, "", "TestBakeRightsAtATerminal"},
		{"provenance", same, "", "TestBakeShorthands"},
		{"pull", same, "", "TestBakeShorthands"},
		{"push", same, "", "TestBakeShorthands"},
		{"sbom", same, "", "TestBakeShorthands"},
		{"set", same, "", "TestBakeLinks"},
		{"var", same, "", "TestBakeShorthands"},
	}
}

// peerImagetoolsCreateFlags are those of `docker buildx imagetools create`, v0.38.
func peerImagetoolsCreateFlags() []peerFlag {
	return []peerFlag{
		{"annotation", better, "one that has no place is refused before anybody is asked, and one that a Docker list cannot have is told of", "TestImagetoolsCreateBesideBuildx"},
		{"append", same, "", "TestImagetoolsAppend"},
		{"builder", better, "also the URL of an endpoint, without create", "TestImagetoolsRegistries"},
		{"debug", same, "", "TestMainJob"},
		{"dry-run", same, "", "TestImagetoolsCreateBesideBuildx"},
		{"file", better, "also a manifest, standard input, text that ends with a line break, and a descriptor beside images", "TestImagetoolsFile"},
		{"metadata-file", better, "written whole or not at all; one that cannot be written is refused before anybody is asked", "TestImagetoolsCreateBesideBuildx"},
		{"platform", better, "where nothing matches, the error says what there is", "TestImagetoolsCreateBesideBuildx"},
		{"prefer-index", same, "", "TestImagetoolsCreateBesideBuildx"},
		{"progress", better, "bytes are shown, and why a registry is waited for", "TestImagetoolsProgress"},
		{"tag", better, "signatures can be found also in a registry without a list of referrers; a name with a digest is refused where that is not what was made", "TestImagetoolsSignatures"},
	}
}

// peerImagetoolsInspectFlags are those of `docker buildx imagetools inspect`, v0.38.
func peerImagetoolsInspectFlags() []peerFlag {
	return []peerFlag{
		{"builder", better, "also the URL of an endpoint, without create", "TestImagetoolsRegistries"},
		{"debug", same, "", "TestMainJob"},
		{"format", better, "only what the template asks for is read; an attestation that cannot be read is an error", "TestImagetoolsInspectBesideBuildx"},
		{"raw", same, "", "TestImagetoolsInspectBesideBuildx"},
	}
}

// TestBuildFlagTable holds docs/reference/build.md against the command and the
// list above: no flag of buildx's is forgotten, and each that is here has a test.
func TestBuildFlagTable(t *testing.T) {
	flagTable(t, "build", "TestBuildFlagTable", peerBuildFlags())
}

// TestBakeFlagTable is the same of docs/reference/bake.md.
func TestBakeFlagTable(t *testing.T) {
	flagTable(t, "bake", "TestBakeFlagTable", peerBakeFlags())
}

// TestImagetoolsFlagTables is the same of the commands of imagetools.
func TestImagetoolsFlagTables(t *testing.T) {
	flagTable(t, "imagetools create", "TestImagetoolsFlagTables", peerImagetoolsCreateFlags())
	flagTable(t, "imagetools inspect", "TestImagetoolsFlagTables", peerImagetoolsInspectFlags())
}

func flagTable(t *testing.T, command, test string, peers []peerFlag) {
	t.Helper()
	a := &app{io: &ui.Streams{}, lookupEnv: func(string) (string, bool) { return "", false }}
	root := newBerthCmd(a, "berth")
	build, _, err := root.Find(strings.Fields(command))
	if err != nil {
		t.Fatal(err)
	}
	tests := endToEndTests(t)
	var page bytes.Buffer
	fmt.Fprintf(&page, tableHead, command, test)
	known := []string{"help"}
	for _, p := range peers {
		known = append(known, p.name)
		f := flagOf(build, p.name)
		switch {
		case p.verdict == notHere:
			if f != nil {
				t.Errorf("--%s is here, and the table says that it is not", p.name)
			}
			fmt.Fprintf(&page, "| `--%s` | | %s, because %s | |\n", p.name, p.verdict, p.because)
			continue
		case f == nil:
			t.Errorf("%s has no --%s", command, p.name)
			continue
		case p.verdict == better && p.because == "":
			t.Errorf("--%s is better, and nothing says how", p.name)
		}
		if !slices.Contains(tests, p.proof) {
			t.Errorf("--%s is shown by %q, which is no test in test/", p.name, p.proof)
		}
		verdict := p.verdict
		if p.because != "" {
			verdict += ": " + p.because
		}
		fmt.Fprintf(&page, "| %s | %s | %s | `%s` |\n", spelled(f), cell(f.Usage), verdict, p.proof)
	}
	var own strings.Builder
	build.Flags().VisitAll(func(f *pflag.Flag) {
		if !slices.Contains(known, f.Name) && !f.Hidden {
			fmt.Fprintf(&own, "| %s | %s |\n", spelled(f), cell(f.Usage))
		}
	})
	if own.Len() > 0 {
		page.WriteString("\n## Only here\n\n| flag | what it does |\n|---|---|\n" + own.String())
	}
	golden(t, filepath.Join("..", "..", "docs", "reference", strings.ReplaceAll(command, " ", "-")+".md"), page.Bytes())
}

const tableHead = `# The flags of ` + "`berth %[1]s`" + `, beside those of buildx

Every flag of ` + "`docker buildx %[1]s`" + ` v0.38 and what it is here. The table is made from the command and checked by a test (` + "`go test ./internal/cli -run %[2]s -update`" + ` writes it); the last column names the end-to-end test in ` + "`test/`" + ` that shows the flag at work on a real daemon.

| flag | what it does | here | seen in |
|---|---|---|---|
`

func flagOf(cmd *cobra.Command, name string) *pflag.Flag {
	if f := cmd.Flags().Lookup(name); f != nil {
		return f
	}
	return cmd.InheritedFlags().Lookup(name)
}

// spelled is the flag as it is typed.
func spelled(f *pflag.Flag) string {
	if f.Shorthand != "" {
		return fmt.Sprintf("`-%s`, `--%s`", f.Shorthand, f.Name)
	}
	return fmt.Sprintf("`--%s`", f.Name)
}

func cell(text string) string { return strings.ReplaceAll(text, "|", `\|`) }

// endToEndTests are the names of the tests in test/.
func endToEndTests(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "test", "*_test.go"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no end-to-end tests: %v", err)
	}
	var names []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "func Test"); ok {
				name, _, _ := strings.Cut(rest, "(")
				names = append(names, "Test"+name)
			}
		}
	}
	return names
}

// golden compares with a file, or writes it with -update.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the command says now; run the test with -update\n%s", path, got)
	}
}
