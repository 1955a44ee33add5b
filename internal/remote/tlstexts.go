package remote

import "github.com/berthbuild/berth/internal/endpoint"

// TLSTexts reads the files that the TLS options name, as they are, for where
// texts are wanted in their place. They are not checked: see CheckTLS. What is
// given as text already comes back as it is.
func TLSTexts(o endpoint.Options) (endpoint.Inline, error) {
	where, err := locate(o)
	if err != nil {
		return endpoint.Inline{}, err
	}
	var texts endpoint.Inline
	for _, part := range []struct {
		from source
		to   *endpoint.Secret
	}{{where.ca, &texts.CACert}, {where.cert, &texts.Cert}, {where.key, &texts.Key}} {
		if !part.from.given() {
			continue
		}
		data, err := readBounded(part.from)
		if err != nil {
			return endpoint.Inline{}, err
		}
		*part.to = endpoint.NewSecret(string(data))
	}
	return texts, nil
}
