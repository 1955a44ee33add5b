package historypage

import (
	"bytes"
	"crypto/sha256"
	_ "embed" // the page's assets
	"encoding/base64"
	"encoding/json"
	"io"
	"strings"
)

// The page: what it is made of, as it was written.
var (
	//go:embed assets/page.html
	pageHTML string //nolint:gochecknoglobals // embedded, and never changed
	//go:embed assets/page.css
	pageCSS string //nolint:gochecknoglobals // embedded, and never changed
	//go:embed assets/page.js
	pageJS string //nolint:gochecknoglobals // embedded, and never changed
)

// start is what the page is told when it begins.
type start struct {
	Mode  string `json:"mode"` // live, report
	Ref   string `json:"ref,omitempty"`
	Build *Build `json:"build,omitempty"`
}

// policy is the page's Content-Security-Policy: its own script and its own style, by
// their hashes, and no way to make markup out of text. A page that is served may ask
// its server.
func policy(served bool) string {
	connect := "'none'"
	if served {
		connect = "'self'"
	}
	parts := []string{
		"default-src 'none'", "script-src '" + hash(pageJS) + "'", "style-src '" + hash(pageCSS) + "'", "img-src data:",
		"connect-src " + connect, "base-uri 'none'", "form-action 'none'", "require-trusted-types-for 'script'", "trusted-types 'none'",
	}
	if served { // a document cannot say this of itself
		parts = append(parts, "frame-ancestors 'none'")
	}
	return strings.Join(parts, "; ")
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}

// page is the whole document. Its parts are put in in one pass, so that nothing in them
// is taken for the place of another.
func page(s start) ([]byte, error) {
	var data bytes.Buffer
	enc := json.NewEncoder(&data)
	enc.SetEscapeHTML(true) // no "</script>", no "<!--"
	if err := enc.Encode(s); err != nil {
		return nil, err
	}
	meta := ""
	if s.Mode != modeLive {
		meta = `<meta http-equiv="Content-Security-Policy" content="` + policy(false) + `">`
	}
	return []byte(strings.NewReplacer(
		"<!--POLICY-->", meta, "/*STYLE*/", pageCSS, "/*DATA*/", strings.TrimSpace(data.String()), "/*SCRIPT*/", pageJS,
	).Replace(pageHTML)), nil
}

const (
	modeLive   = "live"
	modeReport = "report"
)

// Report writes the build as one document that needs nothing else.
func Report(w io.Writer, b *Build) error {
	doc, err := page(start{Mode: modeReport, Build: b})
	if err != nil {
		return err
	}
	_, err = w.Write(doc)
	return err
}
