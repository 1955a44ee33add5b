package cli

import (
	"context"
	"errors"

	"github.com/berthbuild/berth/internal/build"
	"github.com/berthbuild/berth/internal/builder"
	"github.com/berthbuild/berth/internal/buildflag"
	"github.com/berthbuild/berth/internal/progress"
	"github.com/berthbuild/berth/internal/request"
)

// errReported is a failure that has been told where its readers look: a check's
// findings, on standard output. Nothing more is printed of it.
var errReported = errors.New("the report says why")

// setCall reads --call, --check, which is short for one of its values, and
// --print, its old name. It comes last: a question needs less than a build.
func (a *app) setCall(r *request.Request, o buildOptions) error {
	value := o.call
	if o.check && !o.given["call"] {
		value = "check"
	}
	c, err := buildflag.ParseCall(value)
	if err != nil {
		return err
	}
	*r = r.WithCall(c)
	return nil
}

// runCall asks the frontend and prints what it answers: the report on standard
// output, everything else on standard error.
func (a *app) runCall(ctx context.Context, s *builder.Service, b *builder.Builder, req request.Request, o buildOptions, d display, files *resultFiles) error {
	report, err := a.callFrontend(ctx, s, b, req, o, d.printer)
	findings := a.closeDisplay(d)
	if err != nil {
		if ctx.Err() == nil {
			a.printFailedSteps(d.printer)
			a.printFindings(findings, d)
		}
		return buildError(ctx, err)
	}
	a.printFindings(findings, d)
	if err := files.commit(report); err != nil {
		return err
	}
	return printReport(a.io.Out, req.Call, report.Answer, shownDockerfile(req, o))
}

func (a *app) callFrontend(ctx context.Context, s *builder.Service, b *builder.Builder, req request.Request, o buildOptions, printer *progress.Printer) (*build.Report, error) {
	opts, err := a.solveOptions(ctx, s, b, req, o, printer)
	if err != nil {
		return nil, err
	}
	return build.Call(ctx, b, req, opts)
}
