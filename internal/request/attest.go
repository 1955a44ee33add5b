package request

import (
	"fmt"
	"slices"

	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/hint"
)

// defaultProvenance is what is attested when nobody said anything: short, and
// only on images that the daemon keeps or pushes, so that folders and archives
// stay as they are.
const defaultProvenance = "mode=min,inline-only=true"

// attestKey is what the frontend knows an attestation by.
func attestKey(typ string) string { return "attest:" + typ }

// attestName is an attestation for a sentence, by the flag that switches it.
func attestName(a buildflag.Attest) string {
	if a.Type == buildflag.AttestSBOM {
		return "an SBOM (--sbom)"
	}
	return "provenance (--provenance)"
}

// addAttests asks for the attestations. One that was asked for is refused where
// the daemon cannot make it; the default is left out there without a word.
func (r Request) addAttests(attrs map[string]string, c Capabilities) error {
	for _, a := range r.Attests {
		if a.Disabled {
			continue
		}
		if !c.Attestations {
			return hint.New(fmt.Sprintf("%s needs BuildKit v0.11 or newer, and the daemon is %s", attestName(a), c.name()),
				"leave it out: --"+a.Type+"=false", "or update the daemon")
		}
		attrs[attestKey(a.Type)] = a.String()
	}
	if r.provenanceByDefault() && c.Attestations {
		attrs[attestKey(buildflag.AttestProvenance)] = defaultProvenance
	}
	return nil
}

// provenanceByDefault: nobody has said whether it is wanted.
func (r Request) provenanceByDefault() bool {
	asked := slices.ContainsFunc(r.Attests, func(a buildflag.Attest) bool { return a.Type == buildflag.AttestProvenance })
	return !asked && !r.NoProvenance
}

// setArtifacts has attestations stored in plain image manifests, which every
// registry takes, where the environment asks for that. Newer daemons
// would make OCI artifacts of them.
func (r Request) setArtifacts(o buildflag.Output) {
	if r.NoArtifacts && (o.Type == buildflag.OutputImage || o.Type == buildflag.OutputOCI) {
		setDefault(o, "oci-artifact", "false")
	}
}
