package build

import (
	"context"
	"errors"
	"testing"

	"github.com/moby/buildkit/client"

	"github.com/berthbuild/berth/internal/dial/dialtest"
)

// A daemon that does not end one target's build leaves the connection to the
// others, as long as there are any.
func TestHangingTargetLeavesTheConnection(t *testing.T) {
	dialtest.NoLeaks(t)
	s := daemon(t, nil)
	for _, others := range []bool{true, false} {
		o := options(t)
		placed, err := place(t.Context(), builderOf(node("n0", s.Endpoint())), req(t), o)
		if err != nil {
			t.Fatal(err)
		}
		whole := make(chan struct{})
		if !others {
			close(whole)
		}
		p := part{member: placed.members[0], ties: &ties{whole: whole}}
		in := &inputs{broken: make(chan struct{})}
		why := errors.New("cannot be read")
		in.fail(why)
		alive, dead := make(chan struct{}), make(chan struct{})
		_, _, err = watch(t.Context(), p, in, o, func(_ context.Context, statuses chan *client.SolveStatus) (*client.SolveResponse, error) {
			defer close(dead)
			defer close(statuses)
			if others {
				<-alive
				return nil, nil
			}
			for { // as a solve that nobody ends, until its connection is closed
				if _, err := p.conn.Client().Info(context.Background()); err != nil {
					return nil, err
				}
			}
		})
		if _, infoErr := p.conn.Client().Info(t.Context()); (infoErr == nil) != others || err == nil || others && !errors.Is(err, why) {
			t.Errorf("others go on: %v; %v, then %v", others, err, infoErr)
		}
		close(alive)
		<-dead
		placed.close()
	}
}
