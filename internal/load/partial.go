package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	contentapi "github.com/containerd/containerd/api/services/content/v1"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/moby/moby/client"
	"github.com/opencontainers/go-digest"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
)

// Display shows what a load does. Its methods are called by one goroutine at a
// time.
type Display interface {
	// Engine passes on the engine's own words.
	Engine(Status)
	// Sent shows how many bytes of layers went, of what text says.
	Sent(text string, current, total int64)
	// Said shows a fact.
	Said(text string)
}

// holdBudget bounds what is done while the daemon holds the build's results:
// it can do so for few builds at a time.
const holdBudget = 5 * time.Second

// checkBudget bounds the questions after a build.
const checkBudget = 30 * time.Second

var errUnanswered = errors.New("no answer within " + checkBudget.String())

// ErrIncomplete is found in errors about an engine that says it has loaded the
// image and has not all of it.
var ErrIncomplete = errors.New("the engine has taken half of the image for all of it")

// Partial is the way of one image into an engine, without what that has. It is
// made before the build; a Source takes what each daemon builds of the image,
// and Finish must be called in the end.
type Partial struct {
	ctx    context.Context //nolint:containedctx // of the layers' streams, which outlive the solves
	cancel context.CancelFunc
	engine Asker
	facts  Facts
	names  []string
	show   Display
	have   *inventory

	early   chan struct{} // closed when looked is set
	looked  []kept        // the names' images, as they were while the build ran
	sources []*Source
}

// NewPartial begins to ask the engine for the images that have the names, while
// the build runs. The names are full and have tags; there may be none. memory
// may be nil.
func NewPartial(ctx context.Context, engine Asker, f Facts, names []string, memory *Memory, show Display) *Partial {
	p := &Partial{engine: engine, facts: f, names: names, show: show, early: make(chan struct{})}
	p.ctx, p.cancel = context.WithCancel(ctx)
	p.have = &inventory{engine: engine, facts: f, memory: memory}
	go func() {
		defer close(p.early)
		p.looked, _ = p.have.all(p.ctx, names) // what is not answered is not known
	}()
	return p
}

// Source is one daemon's share of the image.
type Source struct {
	*Sift
	blobs *blobs
}

// Source makes the content store for one daemon's export, whose layers are read
// through c. It is called for each daemon, before Finish.
func (p *Partial) Source(c contentapi.ContentClient) *Source {
	s := &Source{blobs: newBlobs(p.ctx, c)}
	s.Sift = newSift(func(ctx context.Context, _ digest.Digest, raw []byte) { p.hold(ctx, s, raw) })
	p.sources = append(p.sources, s)
	return s
}

// hold pins the layers of a manifest that the engine lacks, as long as the
// daemon holds them. Nothing of this may fail the build.
func (p *Partial) hold(ctx context.Context, s *Source, raw []byte) {
	ctx, cancel := context.WithTimeout(ctx, holdBudget)
	defer cancel()
	m, _, err := readManifest(raw, s.find)
	if err != nil {
		return // an index, or an attestation
	}
	select {
	case <-p.early:
	case <-ctx.Done():
		return
	}
	id := digest.FromBytes(raw)
	for _, k := range p.looked {
		if k.available[id] {
			return
		}
	}
	one := &parcel{manifests: []manifest{m}}
	missing := func() []layer {
		var all []layer
		for _, l := range one.missing(p.have.known(p.looked)) {
			if _, err := s.Document(l.digest); err != nil { // an attestation's, which came with it
				all = append(all, l)
			}
		}
		return all
	}
	if lacks := missing(); sizeOf(lacks) >= bigEnough {
		p.have.widen(ctx, lacks, p.repos())
	}
	s.blobs.pin(ctx, missing())
}

// find is a provider of what this daemon has sent.
func (s *Source) find(d digest.Digest) ([]byte, *Source, error) {
	raw, err := s.Document(d)
	return raw, s, err
}

// repos are the names as an engine lists them, without tags.
func (p *Partial) repos() []string {
	var all []string
	for _, n := range p.names {
		if ref, err := reference.ParseNormalizedNamed(n); err == nil {
			all = append(all, reference.FamiliarName(ref))
		}
	}
	return all
}

// Root is what the source's daemon has built.
func (s *Source) Root() (ocispecs.Descriptor, error) {
	root, err := s.root()
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	i, err := imageParts(root, s.find)
	if err != nil {
		return ocispecs.Descriptor{}, err
	}
	return i.root, nil
}

// Abort ends a load whose build has failed. Nothing of it reaches the engine.
func (p *Partial) Abort() {
	p.cancel()
	for _, s := range p.sources {
		s.blobs.close()
	}
	<-p.early
}

// Finish loads what was built. index is the one that was made of what several
// daemons built; nil takes what the one daemon made. notes are the annotations
// of the whole, as an engine keeps them beside it; they may be nil. An error with *Unreadable
// in it says that the image cannot be put together from here, and that the
// engine has not been changed by the try.
func (p *Partial) Finish(index []byte, notes map[string]string) error {
	defer p.Abort()
	i, err := p.image(index)
	if err != nil {
		return err
	}
	i.root.Annotations = notes
	err = p.load(i)
	switch {
	case err != nil && p.ctx.Err() != nil:
		return context.Cause(p.ctx)
	case err != nil:
		return err
	}
	if p.facts.Store == Containerd {
		var layers []digest.Digest
		for _, l := range i.layers() {
			layers = append(layers, l.digest)
		}
		_ = p.have.memory.Put(i.root.Digest, layers) // a help only
	}
	return nil
}

// image puts together what the daemons have sent.
func (p *Partial) image(index []byte) (*parcel, error) {
	find := func(d digest.Digest) ([]byte, *Source, error) {
		var last error
		for _, s := range p.sources {
			raw, err := s.Document(d)
			if err == nil {
				return raw, s, nil
			}
			last = err
		}
		return nil, nil, last
	}
	if index == nil {
		root, err := p.sources[0].root()
		if err != nil {
			return nil, explain(p.engine, err)
		}
		i, err := imageParts(root, find)
		return i, explain(p.engine, err)
	}
	root := digest.FromBytes(index)
	i, err := imageParts(root, func(d digest.Digest) ([]byte, *Source, error) {
		if d == root {
			return index, nil, nil
		}
		return find(d)
	})
	return i, explain(p.engine, err)
}

// load does the least that is needed.
func (p *Partial) load(i *parcel) error {
	all := i.layers()
	tags, here, err := p.look(i)
	if err != nil {
		return err
	}
	wrong := p.wrong(i, tags)
	if len(wrong) == 0 && (here || len(p.names) > 0) {
		p.show.Said("unchanged: the engine has the image, " + share(nil, all) + " sent")
		return nil
	}
	if here {
		p.show.Said("the engine has the image under another name, " + share(nil, all) + " sent")
		if gone, err := p.tag(i, wrong); err != nil || !gone {
			return err
		}
	}
	missing := i.missing(p.have.known(tags))
	err = p.send(i, missing, tags)
	if err == nil || len(missing) == len(all) || !again(err) || p.ctx.Err() != nil {
		return err
	}
	p.show.Said(fmt.Sprintf("the engine did not put the image together (%v): sending all of it", err))
	return p.send(i, all, tags)
}

// again tells whether it may help to send all: when the engine has answered.
func again(err error) bool {
	var unreadable *Unreadable
	return !errors.As(err, &unreadable) && !disconnected(err)
}

// look asks for the names' images, and whether ours is there under any name.
func (p *Partial) look(i *parcel) (tags []kept, here bool, err error) {
	ctx, cancel := context.WithTimeoutCause(p.ctx, checkBudget, errUnanswered)
	defer cancel()
	id := i.id(p.facts.Store)
	tags, err = p.have.all(ctx, p.names)
	if err != nil {
		return nil, false, p.asked(ctx, err)
	}
	for _, k := range tags {
		if p.is(k, i) {
			return tags, true, nil
		}
	}
	k, err := p.have.get(ctx, id.String())
	return tags, p.is(k, i), p.asked(ctx, err)
}

func (p *Partial) asked(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return asking(p.engine, err)
}

// is tells whether the engine has all of our image.
func (p *Partial) is(k kept, i *parcel) bool {
	if k.id != i.id(p.facts.Store) {
		return false
	}
	if p.facts.Store != Containerd {
		return true
	}
	for _, d := range i.parts {
		if !k.available[d] {
			return false
		}
	}
	return true
}

// wrong are the names that are not our image's.
func (p *Partial) wrong(i *parcel, tags []kept) []string {
	var all []string
	for n, k := range tags {
		if !p.is(k, i) {
			all = append(all, p.names[n])
		}
	}
	return all
}

// tagTries is how often a name is given. An engine with containerd's store takes
// it away from the old image first, and fails when somebody else is faster then.
const tagTries = 5

// tag gives the engine's image names. gone: it is not there any more.
func (p *Partial) tag(i *parcel, names []string) (gone bool, err error) {
	ctx, cancel := context.WithTimeoutCause(p.ctx, checkBudget, errUnanswered)
	defer cancel()
	for _, name := range names {
		var err error
		for range tagTries {
			_, err = p.engine.ImageTag(ctx, client.ImageTagOptions{Source: i.id(p.facts.Store).String(), Target: name})
			if err == nil || errdefs.IsNotFound(err) || disconnected(err) || ctx.Err() != nil {
				break
			}
		}
		if errdefs.IsNotFound(err) {
			return true, nil
		}
		if err != nil {
			return false, explainDoing(p.engine, "naming the image "+name+" in the Docker engine", err)
		}
	}
	return false, nil
}

// send streams the image with these layers, and sees whether the engine has it
// then. before is what the names were before.
func (p *Partial) send(i *parcel, layers []layer, before []kept) error {
	meter := &meter{show: p.show, text: "loading " + share(layers, i.layers()), total: sizeOf(layers)}
	meter.add(0)
	pr, pw := io.Pipe()
	var written error
	var wg sync.WaitGroup
	wg.Go(func() {
		b := bundle{image: i, names: p.names, send: layers, open: func(l layer) (io.ReadCloser, error) { return l.from.blobs.open(l) }, sent: meter.add}
		written = b.write(pw)
		_ = pw.CloseWithError(written) // without one it is the end of the archive
	})
	err := Docker(p.ctx, p.engine, pr, meter.engine)
	_ = pr.CloseWithError(io.ErrClosedPipe) // whoever still writes learns of it
	wg.Wait()
	var own *Unreadable
	switch {
	case errors.As(written, &own):
		return explain(p.engine, written)
	case err != nil:
		return err
	case written != nil:
		return explain(p.engine, errors.New("it ended before it had the whole image"))
	}
	return p.verify(i, before)
}

// verify sees whether the engine has what it says it has loaded. A name that it
// did not give is given; one that somebody else took since then stays theirs.
func (p *Partial) verify(i *parcel, before []kept) error {
	tags, here, err := p.look(i)
	if err != nil {
		return err
	}
	if !here {
		return explain(p.engine, ErrIncomplete)
	}
	var left []string
	for n, k := range tags {
		if k.id == "" || k.id == before[n].id && !p.is(k, i) {
			left = append(left, p.names[n])
		}
	}
	if gone, err := p.tag(i, left); err != nil || !gone {
		return err
	}
	return explain(p.engine, errors.New("the image was removed as soon as it was loaded"))
}

// meter shows bytes as they go, not more often than somebody can see.
type meter struct {
	show  Display
	text  string
	total int64

	mu   sync.Mutex
	sent int64
	next time.Time
}

func (m *meter) add(n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sent += n
	if now := time.Now(); m.sent >= m.total || now.After(m.next) {
		m.next = now.Add(100 * time.Millisecond)
		m.show.Sent(m.text, m.sent, m.total)
	}
}

func (m *meter) engine(s Status) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.show.Engine(s)
}

// share is some of all layers for a sentence: "1 of 9 layers, 101 B of 537 MB".
func share(some, all []layer) string {
	noun := "layers"
	if len(all) == 1 {
		noun = "layer"
	}
	return fmt.Sprintf("%d of %d %s, %s of %s", len(some), len(all), noun, bytesText(sizeOf(some)), bytesText(sizeOf(all)))
}

// bytesText is a size as a person says it: 101 B, 4.2 MB, 537 MB.
func bytesText(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	size, unit := float64(n), ""
	for _, unit = range []string{"kB", "MB", "GB", "TB"} {
		if size /= 1000; size < 999.5 {
			break
		}
	}
	if size < 9.95 {
		return fmt.Sprintf("%.1f %s", size, unit)
	}
	return fmt.Sprintf("%.0f %s", size, unit)
}
