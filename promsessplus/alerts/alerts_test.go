// Package alerts_test checks the alerts and the dashboard with the parsers and the engine of Prometheus.
package alerts_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"

	"github.com/sessplus/sessplus"
	"github.com/sessplus/sessplus/promsessplus"
)

var queries = parser.NewParser(parser.Options{})

// rules gives the alerts by name, as promtool check rules reads them.
func rules(t *testing.T) map[string]rulefmt.Rule {
	t.Helper()
	groups, errs := rulefmt.ParseFile("alerts.yml", false, model.UTF8Validation, queries, slog.Default())
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	all := make(map[string]rulefmt.Rule)
	for _, g := range groups.Groups {
		for _, r := range g.Rules {
			all[r.Alert] = r
		}
	}
	return all
}

// exported gives the names of the series that promsessplus makes, with their labels.
func exported(t *testing.T) map[string][]string {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	onEvent, err := promsessplus.New(reg)
	if err != nil {
		t.Fatal(err)
	}
	for _, op := range []sessplus.EventKind{sessplus.EventLoad, sessplus.EventSave} {
		onEvent(t.Context(), sessplus.Event{Kind: op, Op: op, Cookie: "s", Bytes: 1, Start: time.Now(), Duration: 1})
	}
	onEvent(t.Context(), sessplus.Event{Kind: sessplus.EventReject, Cookie: "s", Reason: "forged"})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string][]string)
	for _, f := range families {
		labels := []string{"job"} // of the scrape
		for _, l := range f.Metric[0].Label {
			labels = append(labels, l.GetName())
		}
		if names[f.GetName()] = labels; f.Metric[0].Histogram != nil {
			delete(names, f.GetName())
			names[f.GetName()+"_sum"] = labels
			names[f.GetName()+"_count"] = labels
			names[f.GetName()+"_bucket"] = append(slices.Clone(labels), "le")
		}
	}
	return names
}

// checkNames fails the test if a query uses a series or a label that is not exported.
func checkNames(t *testing.T, where, query string, exported map[string][]string) {
	t.Helper()
	expr, err := queries.ParseExpr(query)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	var labels, used []string
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		switch n := node.(type) {
		case *parser.VectorSelector:
			have, ok := exported[n.Name]
			if !ok {
				t.Errorf("%s: there is no series %s", where, n.Name)
			}
			labels = append(labels, have...)
			for _, m := range n.LabelMatchers {
				if m.Name != model.MetricNameLabel && !slices.Contains(have, m.Name) {
					t.Errorf("%s: %s has no label %s", where, n.Name, m.Name)
				}
			}
		case *parser.AggregateExpr:
			used = append(used, n.Grouping...)
		}
		return nil
	})
	for _, l := range used {
		if !slices.Contains(labels, l) {
			t.Errorf("%s: grouped by %s, which no series has", where, l)
		}
	}
}

func TestAlertsAreAboutWhatIsExported(t *testing.T) {
	names := exported(t)
	for name, r := range rules(t) {
		checkNames(t, name, r.Expr, names)
		if r.Annotations["summary"] == "" || r.Annotations["description"] == "" || r.Labels["severity"] == "" {
			t.Errorf("%s lacks what a person needs: %v %v", name, r.Annotations, r.Labels)
		}
	}
}

func TestDashboardIsAboutWhatIsExported(t *testing.T) {
	text, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Title  string
		Panels []struct {
			ID          int
			Type, Title string
			GridPos     struct{ X, Y, W, H int }
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	names, queried := exported(t), ""
	variables := strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$cookie", ".*")
	ids := make(map[int]bool)
	for _, p := range dashboard.Panels {
		if len(p.Targets) == 0 || p.Title == "" || ids[p.ID] || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d %q cannot be shown", p.ID, p.Title)
		}
		ids[p.ID] = true
		for _, target := range p.Targets {
			checkNames(t, p.Title, variables.Replace(target.Expr), names)
			queried += target.Expr
		}
	}
	for name := range names {
		if !strings.HasSuffix(name, "_count") && !strings.Contains(queried, name) {
			t.Errorf("no panel shows %s", name)
		}
	}
}

// Each alert is silent on a good day and fires when what it is named after happens.
func TestAlertsFire(t *testing.T) {
	const (
		hours   = `x180` // steps of a minute
		healthy = `
	sessplus_operations_total{job="shop",backend="redis",cookie="s",operation="load",outcome="ok"} 0+6000` + hours + `
	sessplus_operations_total{job="shop",backend="redis",cookie="s",operation="save",outcome="ok"} 0+600` + hours + `
	sessplus_operations_total{job="shop",backend="redis",cookie="s",operation="load",outcome="miss"} 0+60` + hours
		expired = `
	sessplus_rejected_cookies_total{job="shop",cookie="s",reason="expired"} 0+100x120 10000+6000x60`
		quick = `
	sessplus_operation_duration_seconds_bucket{job="shop",backend="redis",cookie="s",operation="load",le="0.1"} 0+6000` + hours + `
	sessplus_operation_duration_seconds_bucket{job="shop",backend="redis",cookie="s",operation="load",le="+Inf"} 0+6000` + hours
	)
	for name, trouble := range map[string]string{
		"SessplusBackendDown": healthy + `
	sessplus_operations_total{job="shop",backend="redis",cookie="s",operation="load",outcome="unavailable"} 0+600` + hours,
		"SessplusRejectedCookiesRise": `
	sessplus_rejected_cookies_total{job="shop",cookie="s",reason="forged"} 0+10x160 1600+6000x20`,
		"SessplusSavesDropped": healthy + `
	sessplus_operations_total{job="shop",backend="redis",cookie="s",operation="save",outcome="gone"} 0+6` + hours,
		"SessplusSlow": `
	sessplus_operation_duration_seconds_bucket{job="shop",backend="redis",cookie="s",operation="load",le="0.1"} 0+5000` + hours + `
	sessplus_operation_duration_seconds_bucket{job="shop",backend="redis",cookie="s",operation="load",le="1"} 0+6000` + hours + `
	sessplus_operation_duration_seconds_bucket{job="shop",backend="redis",cookie="s",operation="load",le="+Inf"} 0+6000` + hours,
	} {
		r, ok := rules(t)[name]
		if !ok {
			t.Errorf("there is no alert %s", name)
			continue
		}
		for series, want := range map[string]int{healthy + expired + quick: 0, trouble: 1} {
			if n := fires(t, r.Expr, series); n != want {
				t.Errorf("%s fires %d times, want %d, on%s", name, n, want, series)
			}
		}
	}
	if n := len(rules(t)); n != 4 {
		t.Errorf("%d alerts, of which 4 are tried", n)
	}
}

// fires returns how many results the query has at the end of the series.
func fires(t *testing.T, query, series string) int {
	t.Helper()
	storage := promqltest.LoadedStorage(t, "load 1m"+series)
	defer storage.Close()
	engine := promqltest.NewTestEngine(t, false, 0, 1_000_000)
	q, err := engine.NewInstantQuery(t.Context(), storage, nil, query, time.Unix(0, 0).Add(170*time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	v, err := q.Exec(t.Context()).Vector()
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", query, err))
	}
	return len(v)
}
