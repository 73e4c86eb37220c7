package api

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"

	"keyrite/artifact/access"
	"keyrite/vault/engine"
	"keyrite/vault/node"
	"keyrite/vault/seal"
)

// Metrics counts what is served. A nil one counts nothing.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	seconds  prometheus.Histogram
}

// NewMetrics counts for one vault.
func NewMetrics(status func() node.Status) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "keyrite_vault_requests_total", Help: "Requests by HTTP status."}, []string{"status"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "keyrite_vault_request_seconds", Help: "Time from the header of a request to its answer.",
			Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
	}
	m.registry.MustRegister(m.requests, m.seconds, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, g := range gauges() {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "keyrite_vault_" + g.name, Help: g.help}, func() float64 { return g.of(status()) }))
	}
	return m
}

type gauge struct {
	name, help string
	of         func(node.Status) float64
}

func gauges() []gauge {
	truth := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	return []gauge{
		{"sealed", "1 while the vault is sealed.", func(s node.Status) float64 { return truth(s.Sealed) }},
		{"stopped", "1 after a failed write: nothing is served until the vault is started anew.", func(s node.Status) float64 { return truth(s.Store.Stopped != nil) }},
		{"charter_statements", "Statements in force.", func(s node.Status) float64 { return float64(s.Charter) }},
		{"charter_refused", "1 while the charter file has changed and is not taken over.", func(s node.Status) float64 { return truth(s.FileRefused != nil) }},
		{"store_entries", "Entries of the log.", func(s node.Status) float64 { return float64(s.Store.Size) }},
		{"store_behind_seconds", "For how long the head of the store has been behind.", func(s node.Status) float64 { return s.Store.Behind.Seconds() }},
		{"refusals_left_out", "Refusals of unknown callers without an entry of their own.", func(s node.Status) float64 { return float64(s.LeftOut) }},
		{"looks_left_out", "Looks at paths that need no caller without an entry of their own.", func(s node.Status) float64 { return float64(s.Unlisted) }},
		{"intents_cut_off", "Uses of keys found without a result when the vault was opened.", func(s node.Status) float64 { return float64(s.Intents) }},
		{"results_owed", "Uses of keys that came to nothing, whose results cannot be written yet.", func(s node.Status) float64 { return float64(s.Owed) }},
	}
}

func (m *Metrics) request(status int, took time.Duration) {
	if m == nil {
		return
	}
	m.requests.WithLabelValues(strconv.Itoa(status)).Inc()
	m.seconds.Observe(took.Seconds())
}

// Plan answers sys/metrics in the text form of Prometheus. It is node.Config.Metrics.
func (m *Metrics) Plan(p engine.Params) (*engine.Plan, error) {
	if err := p.Only("format"); err != nil {
		return nil, err
	}
	var out []byte
	return &engine.Plan{
		Work: func(context.Context) (err error) {
			out, err = m.text()
			return err
		},
		Apply: func(*seal.Tx) (*engine.Answer, error) {
			return &engine.Answer{Raw: out, ContentType: metricsType()}, nil
		},
	}, nil
}

func metricsType() string { return string(expfmt.NewFormat(expfmt.TypeTextPlain)) }

func (m *Metrics) text() ([]byte, error) {
	families, err := m.registry.Gather()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&out, f); err != nil {
			return nil, err
		}
	}
	return out.Bytes(), nil
}

// pathMetrics is where the figures are.
const pathMetrics = "sys/metrics"

// figures answers sys/metrics of a vault that is sealed or whose store stopped, which
// could write no entry: that it is so is what the figures are to tell then. It is for
// whom the newest charter lets read them, by certificate or user alone. Everybody else,
// and whatever is wrong, is left to node, which refuses.
func (s *Server) figures(w http.ResponseWriter, r *http.Request, c *call) (status int, ok bool) {
	if c.RawPath != pathMetrics || c.Method != engine.Read || c.Fault != nil || c.Token.Len() > 0 || c.Params.Only("format") != nil ||
		s.cfg.Metrics == nil || s.cfg.Charter == nil {
		return 0, false
	}
	if st := s.cfg.Vault.Status(); !st.Sealed && st.Store.Stopped == nil {
		return 0, false
	}
	newest, err := s.cfg.Charter()
	if err != nil {
		s.cfg.Log.LogAttrs(r.Context(), slog.LevelError, "the charter cannot be read, so nobody is known", slog.String("error", err.Error()))
		return 0, false
	}
	if _, err := node.MayWhileSealed(newest, c.Peer, pathMetrics, access.Read, time.Now); err != nil {
		return 0, false
	}
	out, err := s.cfg.Metrics.text()
	if err != nil {
		return 0, false
	}
	s.cfg.Vault.Looked(r.Context(), node.Look{Operation: string(access.Read), Path: pathMetrics, Peer: c.Peer})
	return write(w, http.StatusOK, metricsType(), out), true
}
