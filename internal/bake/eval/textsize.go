package eval

// TextSize is how many bytes of text a target has: what writing it out takes, at
// the least.
func (t *Target) TextSize() int {
	n := len(t.Name) + len(t.Description) + len(t.ContextFile)
	for _, s := range []*string{t.Context, t.Dockerfile, t.DockerfileInline, t.Target, t.Network, t.ShmSize, t.Call} {
		n += sizeOf(s)
	}
	for _, list := range [][]string{t.Inherits, t.Tags, t.Platforms, t.Annotations, t.NoCacheFilter, t.Ulimits, t.Entitlements} {
		n += textsSize(list)
	}
	for _, m := range []map[string]*string{t.Args, t.Labels, t.ExtraHosts} {
		for k, v := range m {
			n += len(k) + sizeOf(v)
		}
	}
	return n + mapSize(t.Contexts) + t.entriesSize()
}

// entriesSize is that of the entries that have fields of their own.
func (t *Target) entriesSize() int {
	n := 0
	for _, caches := range [][]Cache{t.CacheFrom, t.CacheTo} {
		for _, c := range caches {
			n += len(c.Type) + mapSize(c.Attrs)
		}
	}
	for _, o := range t.Outputs {
		n += len(o.Type) + len(o.Dest) + mapSize(o.Attrs)
	}
	for _, s := range t.Secrets {
		n += len(s.ID) + len(s.Src) + len(s.Env)
	}
	for _, s := range t.SSH {
		n += len(s.ID) + textsSize(s.Paths)
	}
	for _, a := range t.Attest {
		n += len(a.Type) + mapSize(a.Attrs)
	}
	for _, p := range t.Policy {
		n += textsSize(p.Files)
	}
	return n
}

func sizeOf(s *string) int {
	if s == nil {
		return 0
	}
	return len(*s)
}

func textsSize(list []string) int {
	n := 0
	for _, s := range list {
		n += len(s)
	}
	return n
}

func mapSize(m map[string]string) int {
	n := 0
	for k, v := range m {
		n += len(k) + len(v)
	}
	return n
}
