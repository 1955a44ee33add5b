package cli

import (
	"strconv"

	"github.com/berthbuild/berth/internal/build"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/request"
)

// The variables that say what is attested, and told of it, by default.
const (
	envNoAttestations     = "BUILDX_NO_DEFAULT_ATTESTATIONS"
	envNoArtifact         = "BUILDX_NO_DEFAULT_OCI_ARTIFACT"
	envMetadataProvenance = "BUILDX_METADATA_PROVENANCE"
)

// setAttestations reads --attest, --provenance and --sbom, and what the
// environment turns off of what is done without them.
func (a *app) setAttestations(r *request.Request, o buildOptions) (err error) {
	if r.Attests, err = buildflag.ParseAttests(o.attests, o.provenance, o.sbom); err != nil {
		return err
	}
	if r.NoProvenance, err = a.envBool(envNoAttestations); err != nil {
		return err
	}
	r.NoArtifacts, err = a.envBool(envNoArtifact)
	return err
}

// metadataProvenance is how much of the daemon's record goes into the
// --metadata-file. As in buildx, a value that is not known counts as min.
func (a *app) metadataProvenance(o buildOptions) build.ProvenanceDetail {
	if o.metadataFile == "" {
		return build.NoProvenance
	}
	v := a.env(envMetadataProvenance)
	if on, err := strconv.ParseBool(v); v == "disabled" || err == nil && !on {
		return build.NoProvenance
	}
	if v == "max" {
		return build.MaxProvenance
	}
	return build.MinProvenance
}
