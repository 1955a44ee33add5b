package registry

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"
)

// A registry that has no time for the list of referrers has not said that there are none.
func TestReferrersNotTold(t *testing.T) {
	for _, status := range []int{408, 429, 503, 403} {
		var world clock
		r := repoAt(t, world.client(Options{}), serve(t, answers(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/referrers/") {
				w.WriteHeader(status)
				return
			}
			w.WriteHeader(http.StatusNotFound)
		}))+"/a")
		if all, err := r.Referrers(t.Context(), digest.FromString("x")); err == nil {
			t.Errorf("%d: %v", status, all)
		}
	}
}

// A list that comes in pages is read whole, from the registry itself wherever it says
// that it goes on, and ends.
func TestReferrersInPages(t *testing.T) {
	for last, wanted := range map[int]int{1: 1, 3: 3, maxPages: maxPages, maxPages + 1: -1} {
		var asked atomic.Int32
		r := repoAt(t, New(Options{}), serve(t, answers(func(w http.ResponseWriter, r *http.Request) {
			n := int(asked.Add(1))
			if got := r.URL.Query().Get("page"); n > 1 && (got != fmt.Sprint(n) || !strings.Contains(r.URL.Path, "/referrers/")) {
				t.Errorf("asked for %s", r.URL)
			}
			if n < last {
				w.Header().Add("Link", `<http://elsewhere.invalid/x>; rel="prev"`)
				w.Header().Add("Link", fmt.Sprintf(`<http://elsewhere.invalid%s?a=1,2&page=%d>; x=1; rel="next"`, r.URL.Path, n+1))
			}
			_, _ = fmt.Fprintf(w, `{"manifests":[{"digest":%q}]}`, digest.FromString(fmt.Sprint(n)))
		}))+"/a")
		all, err := r.Referrers(t.Context(), digest.FromString("x"))
		if wanted < 0 && err == nil || wanted >= 0 && (err != nil || len(all) != wanted) {
			t.Errorf("%d pages: %d, %v", last, len(all), err)
		}
	}
}

func FuzzNextPage(f *testing.F) {
	for _, s := range []string{"", "</v2/x?n=1>; rel=next", `<https://h/v2/x>;rel="next", <y>; rel=prev`, "<//h/x>;rel=next", "<>;rel=next", "<mailto:x>;rel=next", "<\x00>;rel=next"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, link string) {
		next := nextPage(&url.URL{Scheme: "https", Host: "own", Path: "/v2/a"}, []string{link})
		if next == "" {
			return
		}
		if u, err := url.Parse("https://own" + next); err != nil || u.Host != "own" {
			t.Fatalf("%q leads to %q", link, next)
		}
	})
}
