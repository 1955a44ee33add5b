package remote

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// UseBuildKitCodec makes this process write and read BuildKit's messages by the
// code that BuildKit generated for them, as BuildKit's own programs do. gRPC's
// default refuses names of files that are not UTF-8, which folders on Linux may
// have, and works by reflection, which is slow for the hundred thousand
// messages of a large build context.
//
// gRPC keeps codecs for the whole process and does not guard them: a program
// calls this once, before anything else.
func UseBuildKitCodec() {
	encoding.RegisterCodecV2(codec{encoding.GetCodecV2(proto.Name)})
}

// codec is gRPC's own for every message that has no generated code.
type codec struct{ encoding.CodecV2 }

// generated is what BuildKit's messages have.
type generated interface {
	SizeVT() int
	MarshalToSizedBufferVT([]byte) (int, error)
	UnmarshalVT([]byte) error
}

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(generated)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	size := m.SizeVT()
	if mem.IsBelowBufferPoolingThreshold(size) {
		data := make([]byte, size)
		_, err := m.MarshalToSizedBufferVT(data)
		return mem.BufferSlice{mem.SliceBuffer(data)}, err
	}
	pool := mem.DefaultBufferPool()
	data := pool.Get(size)
	if _, err := m.MarshalToSizedBufferVT((*data)[:size]); err != nil {
		pool.Put(data)
		return nil, err
	}
	return mem.BufferSlice{mem.NewBuffer(data, pool)}, nil
}

// Unmarshal implements encoding.CodecV2. What is in v already stays, as
// BuildKit's library expects: it takes care of messages that it uses again, and
// keeps their buffers by that.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	m, ok := v.(generated)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	return m.UnmarshalVT(buf.ReadOnlyData())
}
