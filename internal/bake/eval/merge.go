package eval

import (
	"maps"
	"slices"
)

// Merge gives t as changed by over: by a later block of the same target, by the
// target that inherits from t, by a later file. Neither is changed; what is the
// same in the result is shared with them, so that maps and lists are cloned
// before they are changed. The name is over's.
//
// Lists that are added to have each entry once, in the order in which buildx has
// them: an entry with a key (the id of a secret) stays where it was first, with
// what was said of it last.
func (t *Target) Merge(over *Target) Target {
	out := *t
	out.Name, out.Inherits = over.Name, over.Inherits
	if over.Description != "" {
		out.Description = over.Description
	}
	out.mergeContexts(over)
	override(&out.Dockerfile, over.Dockerfile)
	override(&out.DockerfileInline, over.DockerfileInline)
	override(&out.Target, over.Target)
	override(&out.Pull, over.Pull)
	override(&out.NoCache, over.NoCache)
	override(&out.Network, over.Network)
	override(&out.ShmSize, over.ShmSize)
	override(&out.Call, over.Call)
	out.Args = addMap(t.Args, over.Args)
	out.Labels = addMap(t.Labels, over.Labels)
	out.ExtraHosts = addMap(t.ExtraHosts, over.ExtraHosts)
	out.Resources = t.Resources.merge(over.Resources)
	out.mergeLists(over)
	return out
}

func (t *Target) mergeContexts(over *Target) {
	switch {
	case over.Context != nil:
		t.Context, t.ContextFile = over.Context, over.ContextFile
	case t.Context == nil && over.ContextFile != "":
		t.ContextFile = over.ContextFile
	}
	if over.Contexts == nil {
		return
	}
	t.Contexts, t.ContextsFile = maps.Clone(t.Contexts), maps.Clone(t.ContextsFile)
	if t.Contexts == nil {
		t.Contexts = map[string]string{}
	}
	if t.ContextsFile == nil {
		t.ContextsFile = map[string]string{}
	}
	maps.Copy(t.Contexts, over.Contexts)
	maps.Copy(t.ContextsFile, over.ContextsFile)
}

func (t *Target) mergeLists(over *Target) {
	overrideList(&t.Tags, over.Tags)
	overrideList(&t.Platforms, over.Platforms)
	overrideList(&t.CacheTo, over.CacheTo)
	overrideList(&t.Outputs, over.Outputs)
	t.Annotations = addTexts(t.Annotations, over.Annotations)
	t.NoCacheFilter = addTexts(t.NoCacheFilter, over.NoCacheFilter)
	t.Ulimits = addTexts(t.Ulimits, over.Ulimits)
	t.Entitlements = addTexts(t.Entitlements, over.Entitlements)
	t.CacheFrom = distinctBy(concat(t.CacheFrom, over.CacheFrom), Cache.String)
	t.Secrets = lastBy(concat(t.Secrets, over.Secrets), func(s Secret) string { return s.ID })
	t.SSH = lastBy(concat(t.SSH, over.SSH), func(s SSH) string { return s.ID })
	t.Attest = lastBy(concat(t.Attest, over.Attest), func(a Attest) string { return a.Type })
	t.Policy = concat(t.Policy, over.Policy)
}

func override[T any](have **T, over *T) {
	if over != nil {
		*have = over
	}
}

func overrideList[T any](have *[]T, over []T) {
	if over != nil {
		*have = over
	}
}

// concat is nil only where both are.
func concat[T any](a, b []T) []T {
	switch {
	case b == nil:
		return a
	case a == nil:
		return b
	}
	return slices.Concat(a, b)
}

// addMap adds over to have. What is nil in over says nothing, where have has it.
func addMap(have, over map[string]*string) map[string]*string {
	switch {
	case over == nil:
		return have
	case have == nil:
		return over
	}
	out := make(map[string]*string, len(have)+len(over))
	maps.Copy(out, have)
	for k, v := range over {
		if _, ok := have[k]; v != nil || !ok {
			out[k] = v
		}
	}
	return out
}

// addTexts gives each text once, where it is first, and no empty one.
func addTexts(a, b []string) []string {
	if b == nil {
		return a
	}
	return texts(slices.Concat(a, b))
}

// texts gives each text of a list once, where it is first, and no empty one.
func texts(list []string) []string {
	if list == nil {
		return nil
	}
	seen := make(map[string]struct{}, len(list))
	out := make([]string, 0, len(list))
	for _, s := range list {
		if _, again := seen[s]; s == "" || again {
			continue
		}
		seen[s] = struct{}{}
		out = append(out, s)
	}
	return out
}

// distinctBy keeps the first of the entries that are the same. The order is
// buildx's, which looks from the end on whether an entry comes again, and puts
// the last entry in the place of the one that does.
func distinctBy[T any](list []T, key func(T) string) []T {
	if len(list) < 2 {
		return list
	}
	out := slices.Clone(list)
	keys := make([]string, len(out))
	at := make(map[string]int, len(out)) // where each key is, from i on
	for i := len(out) - 1; i >= 0; i-- {
		keys[i] = key(out[i])
		if again, ok := at[keys[i]]; ok {
			last := len(out) - 1
			out[again], keys[again] = out[last], keys[last]
			at[keys[again]] = again
			out = out[:last]
		}
		at[keys[i]] = i
	}
	return out
}

// lastBy keeps one entry of each key: where the first one is, what the last one
// says.
func lastBy[T any](list []T, key func(T) string) []T {
	if len(list) < 2 {
		return list
	}
	at := make(map[string]int, len(list))
	out := make([]T, 0, len(list))
	for _, x := range list {
		k := key(x)
		if i, ok := at[k]; ok {
			out[i] = x
			continue
		}
		at[k] = len(out)
		out = append(out, x)
	}
	return out
}

func (r *Resources) merge(over *Resources) *Resources {
	switch {
	case over == nil:
		return r
	case r == nil:
		return over
	}
	out := *r
	override(&out.Memory, over.Memory)
	override(&out.MemorySwap, over.MemorySwap)
	override(&out.CPUShares, over.CPUShares)
	override(&out.CPUPeriod, over.CPUPeriod)
	override(&out.CPUQuota, over.CPUQuota)
	override(&out.CpusetCPUs, over.CpusetCPUs)
	override(&out.CpusetMems, over.CpusetMems)
	return &out
}

// Normalize drops what says nothing: empty texts, repeated entries, contexts
// that have been taken away.
func (t *Target) Normalize() {
	t.Tags, t.Platforms, t.Annotations = texts(t.Tags), texts(t.Platforms), texts(t.Annotations)
	t.NoCacheFilter, t.Ulimits, t.Entitlements = texts(t.NoCacheFilter), texts(t.Ulimits), texts(t.Entitlements)
	t.CacheFrom, t.CacheTo = distinctBy(t.CacheFrom, Cache.String), distinctBy(t.CacheTo, Cache.String)
	t.Outputs = distinctBy(t.Outputs, Output.String)
	t.Secrets = lastBy(t.Secrets, func(s Secret) string { return s.ID })
	t.SSH = lastBy(t.SSH, func(s SSH) string { return s.ID })
	t.Attest = lastBy(t.Attest, func(a Attest) string { return a.Type })
	if slices.Contains(slices.Collect(maps.Values(t.Contexts)), "") {
		t.Contexts = maps.Clone(t.Contexts)
		maps.DeleteFunc(t.Contexts, func(_, v string) bool { return v == "" })
	}
}
