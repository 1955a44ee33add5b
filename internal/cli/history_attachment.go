package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/berthbuild/berth/internal/hint"
	"github.com/berthbuild/berth/internal/history"
	"github.com/opencontainers/go-digest"
	"github.com/spf13/cobra"
)

type historyAttachmentOptions struct {
	*historyOptions
	args   []string
	wanted history.Wanted
}

func newHistoryAttachmentCmd(a *app, shared *historyOptions) *cobra.Command {
	o := historyAttachmentOptions{historyOptions: shared}
	cmd := &cobra.Command{
		Use:   "attachment [OPTIONS] [REF [DIGEST]]",
		Short: "Write something that hangs on a build record",
		Long: `Write an attachment of a build record to standard output, byte for byte: the first
that has the type and the platform, or the one with the digest, as berth history
inspect lists them.

--type takes provenance, sbom, index or manifest, or a type in full. --type error
writes why the build failed, with the lines of the Dockerfile and the last of the
log.`,
		Example: `  berth history inspect attachment --type provenance
  berth history inspect attachment ^1 --type sbom --platform linux/arm64
  berth history inspect attachment ^0 --type error`,
		Args: cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.args = args
			return a.traced(cmd, func(ctx context.Context) error { return a.runHistoryAttachment(ctx, o) })
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.wanted.Type, "type", "", "the attachment's type: "+strings.Join(history.AttachmentTypes(), ", ")+", or in full")
	f.StringVar(&o.wanted.Platform, "platform", "", "the platform that it is for")
	completeWith(cmd, "type", completeWords(history.AttachmentTypes()...))
	return cmd
}

func (a *app) runHistoryAttachment(ctx context.Context, o historyAttachmentOptions) error {
	if o.wanted == (history.Wanted{}) && len(o.args) < 2 {
		return hint.New("at least one of --type, --platform or DIGEST must be specified", "see what there is: berth history inspect")
	}
	if len(o.args) == 2 {
		if _, err := digest.Parse(o.args[1]); err != nil {
			return hint.Wrap(err, fmt.Sprintf("invalid digest %q", o.args[1]), "berth history inspect shows them in full")
		}
	}
	return a.withRecord(ctx, o.historyOptions, o.args, func(_ *history.History, r *history.Record, ref history.Reference) error {
		return a.printAttachment(ctx, r, ref, o)
	})
}

func (a *app) printAttachment(ctx context.Context, r *history.Record, ref history.Reference, o historyAttachmentOptions) error {
	var data []byte
	var err error
	switch {
	case len(o.args) == 2:
		data, err = r.Content(ctx, o.args[1])
	case o.wanted.Type == "error":
		return a.printFailure(ctx, r)
	default:
		data, err = r.Attachment(ctx, o.wanted)
	}
	switch {
	case err != nil:
		return err
	case data == nil:
		return noAttachment(ref, r)
	}
	_, err = a.io.Out.Write(data)
	return err
}

func noAttachment(ref history.Reference, r *history.Record) error {
	return hint.New(fmt.Sprintf("no matching attachment found for ref %q", ref.String()), "see what there is: berth history inspect "+r.Ref)
}

// printFailure writes why a build failed.
func (a *app) printFailure(ctx context.Context, r *history.Record) error {
	f, err := r.Failure(ctx)
	switch {
	case err != nil:
		return err
	case f == nil:
		return hint.New(fmt.Sprintf("build %s has no error: it is %s", r.Ref, r.Status()))
	}
	return a.printClean(failureText(f, true))
}
