package remote

import (
	"strings"
	"testing"

	controlapi "github.com/moby/buildkit/api/services/control"
	fstypes "github.com/tonistiigi/fsutil/types"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func TestCodec(t *testing.T) {
	std := encoding.GetCodecV2(proto.Name)
	c := codec{std}
	if c.Name() != proto.Name {
		t.Errorf("it is called %q", c.Name())
	}

	// The same bytes as gRPC's own, small and large.
	for _, size := range []int{0, 10, 1 << 20} {
		m := &controlapi.SolveRequest{Ref: "r", Frontend: strings.Repeat("x", size)}
		ours, err := c.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := std.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if string(ours.Materialize()) != string(theirs.Materialize()) {
			t.Errorf("%d bytes: another encoding", size)
		}
		var back controlapi.SolveRequest
		if err := c.Unmarshal(ours, &back); err != nil || back.Frontend != m.Frontend || back.Ref != "r" {
			t.Errorf("%d bytes: read back as %d, %v", size, len(back.Frontend), err)
		}
	}

	// What gRPC's own refuses.
	stat := &fstypes.Packet{Type: fstypes.PACKET_STAT, Stat: &fstypes.Stat{Path: "a\xffb"}}
	if _, err := std.Marshal(stat); err == nil {
		t.Error("gRPC's own codec takes such names now: ours is not needed any more")
	}
	data, err := c.Marshal(stat)
	if err != nil {
		t.Fatal(err)
	}
	var back fstypes.Packet
	if err := c.Unmarshal(data, &back); err != nil || back.Stat.Path != "a\xffb" {
		t.Errorf("%q, %v", back.Stat.GetPath(), err)
	}

	// Messages that are not BuildKit's, and garbage.
	data, err = c.Marshal(&grpc_health_v1.HealthCheckRequest{Service: "s"})
	if err != nil {
		t.Fatal(err)
	}
	var health grpc_health_v1.HealthCheckRequest
	if err := c.Unmarshal(data, &health); err != nil || health.Service != "s" {
		t.Errorf("%v, %v", &health, err)
	}
	if err := c.Unmarshal(data[:0], &health); err != nil {
		t.Error(err)
	}
	if _, err := c.Marshal("no message"); err == nil {
		t.Error("a string was marshalled")
	}
}
