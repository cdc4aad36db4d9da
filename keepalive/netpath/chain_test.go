package netpath_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/natwise/natwise/keepalive/netpath"
)

func TestAChainForgetsWithItsFirstAndHoldsWithItsSlowest(t *testing.T) {
	p := netpath.Chain(netpath.AzureLoadBalancer(1024), netpath.AzureNATGateway(1), netpath.KubeProxy())
	if p.Idle != 240*time.Second {
		t.Errorf("idle %v", p.Idle)
	}
	want := netpath.Hold{FIN: 240 * time.Second, RST: 16 * time.Second, SYN: 240 * time.Second, Idle: 240 * time.Second}
	if p.Hold != want {
		t.Errorf("hold %+v, want %+v", p.Hold, want)
	}
	if p.Limit(netpath.Destination) != 1024 || len(p.Limits) != 2 {
		t.Errorf("limits %v", p.Limits)
	}
	if p.Name != "azure-load-balancer + azure-nat-gateway + kube-proxy" {
		t.Errorf("name %q", p.Name)
	}
}

func TestAProxyAddsNothingToTheHolds(t *testing.T) {
	alone := netpath.AzureAppService()
	p := netpath.Chain(alone, netpath.AWSALB())
	if p.Hold != alone.Hold || !slices.Equal(p.Limits, alone.Limits) {
		t.Errorf("got %v", p)
	}
	if p.Idle != 60*time.Second || p.AtIdle != netpath.Close || p.Counts != netpath.Requests {
		t.Errorf("got %v", p)
	}
}

func TestAChainSaysWhereEachNumberComesFrom(t *testing.T) {
	lb, alb, fw := netpath.AzureLoadBalancer(1024), netpath.AWSALB(), netpath.AzureFirewall(1)
	p := netpath.Chain(lb, alb, fw)
	for _, tt := range []struct {
		field string
		from  netpath.Profile
		as    string
	}{
		{"Idle", alb, "Idle"},
		{"AtIdle", alb, "AtIdle"},
		{"Counts", alb, "Counts"},
		{"Hold.FIN", lb, "Hold.FIN"},
		{"Hold.RST", fw, "Hold.RST"},
		{"Drain", fw, "Drain"},
		{"Limits[0]", lb, "Limits[0]"},
		{"Limits[1]", fw, "Limits[0]"},
	} {
		source, grade := p.Cite(tt.field)
		wantSource, wantGrade := tt.from.Cite(tt.as)
		if source != wantSource || grade != wantGrade {
			t.Errorf("%s: got %q (%v), want %q (%v)", tt.field, source, grade, wantSource, wantGrade)
		}
	}
	if p.Grade != netpath.Reported {
		t.Errorf("a chain is as good as its weakest part: %v", p.Grade)
	}
}

func TestAnUnknownTimerInAChainIsUnknownsAndSaysSo(t *testing.T) {
	documented := netpath.Profile{Name: "mine", Source: "my page", Grade: netpath.Documented}
	p := netpath.Chain(netpath.KubeIPVS(), documented)
	if p.Idle != 230*time.Second || p.Hold.FIN != 240*time.Second {
		t.Errorf("got %v", p)
	}
	if source, grade := p.Cite("Idle"); grade != netpath.Assumed || strings.Contains(source, "my page") {
		t.Errorf("the number is nobody's: %q (%v)", source, grade)
	}
}

func TestNoneIsTheLongestIdleAndTheShortestHold(t *testing.T) {
	none := netpath.Profile{Idle: netpath.None, Hold: netpath.Hold{FIN: netpath.None, RST: netpath.None, SYN: netpath.None, Idle: netpath.None}}
	lb := netpath.AzureLoadBalancer(8)
	if p := netpath.Chain(none, lb); p.Idle != lb.Idle || p.Hold != lb.Hold {
		t.Errorf("got %v", p)
	}
	if p := netpath.Chain(none, none); p.Idle != netpath.None || p.Hold != none.Hold {
		t.Errorf("got %v", p)
	}
}

func TestTheQuieterOfTwoThatForgetTogetherDecides(t *testing.T) {
	p := netpath.Chain(netpath.AzureLoadBalancerReset(8), netpath.AzureNATGateway(1), netpath.AzureLoadBalancer(8))
	if p.AtIdle != netpath.Drop {
		t.Errorf("got %v", p.AtIdle)
	}
}

func TestAChainOfNoneIsUnknownAndOfOneIsThatOne(t *testing.T) {
	if got := netpath.Chain(); got.String() != netpath.Unknown().String() {
		t.Errorf("got %v", got)
	}
	if got, want := netpath.Chain(netpath.AWSNLB()), netpath.AWSNLB(); got.String() != want.String() {
		t.Errorf("got %v", got)
	}
}

func TestBoxesSharedByDifferentNumbersKeepTheirOwnPart(t *testing.T) {
	node, gateway := netpath.AzureAKS(1024), netpath.AzureNATGateway(1)
	node.Sharers, gateway.Sharers = 10, 500
	p := netpath.Chain(node, netpath.AWSALB(), gateway)
	if got := p.Limit(netpath.Destination); got != 90 {
		t.Errorf("got %d, want 90: a tenth of 921 from the node, 90 of the gateway", got)
	}
	gateway.Sharers = 10
	if p := netpath.Chain(node, gateway); p.Sharers != 10 || p.Limits[0].N != 1024 {
		t.Errorf("with one number there is nothing to work out: %v", p)
	}
}

func TestOnlyWhatAllExemptIsExempt(t *testing.T) {
	prefixes := func(texts ...string) []netip.Prefix {
		list := netpath.NoExempt()
		for _, s := range texts {
			list = append(list, netip.MustParsePrefix(s))
		}
		return list
	}
	tests := []struct{ a, b, want []netip.Prefix }{
		{nil, nil, nil},
		{nil, prefixes(), prefixes()},
		{nil, prefixes("10.1.0.0/16", "20.0.0.0/8"), prefixes("10.1.0.0/16")},
		{prefixes("10.0.0.0/8"), prefixes("10.1.0.0/16", "10.2.0.0/16"), prefixes("10.1.0.0/16", "10.2.0.0/16")},
		{prefixes("20.0.0.0/8"), prefixes("30.0.0.0/8"), prefixes()},
	}
	for _, tt := range tests {
		for _, hops := range [][2][]netip.Prefix{{tt.a, tt.b}, {tt.b, tt.a}} {
			got := netpath.Chain(netpath.Profile{Exempt: hops[0]}, netpath.Profile{Exempt: hops[1]}).Exempt
			if !slices.Equal(got, tt.want) || (got == nil) != (tt.want == nil) {
				t.Errorf("%v and %v: got %v, want %v", hops[0], hops[1], got, tt.want)
			}
		}
	}
}

func TestWhatElseAChainDoes(t *testing.T) {
	forgets, never := netpath.Profile{Idle: time.Minute}, netpath.Profile{Idle: netpath.None}
	resumes := netpath.GCPFirewall()
	draining := func(d time.Duration) netpath.Profile { return netpath.Profile{Drain: d} }
	if p := netpath.Chain(forgets, netpath.AWSLambdaVPC()); !p.Freezes {
		t.Error("it freezes if one of them does")
	}
	if netpath.Chain(resumes, forgets).Resumes || !netpath.Chain(never, resumes).Resumes {
		t.Error("it resumes if all that forget do")
	}
	for _, tt := range []struct{ a, b, want time.Duration }{
		{0, 0, 0},
		{90, 0, 90},
		{90, 60, 60},
		{90, netpath.None, 90},
		{0, netpath.None, 0},
		{netpath.None, netpath.None, netpath.None},
	} {
		if p := netpath.Chain(draining(tt.a), draining(tt.b)); p.Drain != tt.want {
			t.Errorf("%v and %v drain in %v, want %v", tt.a, tt.b, p.Drain, tt.want)
		}
		if p := netpath.Chain(draining(tt.b), draining(tt.a)); p.Drain != tt.want {
			t.Errorf("%v and %v drain in %v, want %v", tt.b, tt.a, p.Drain, tt.want)
		}
	}
}

// FuzzChain reads boxes from bytes, twelve a box.
func FuzzChain(f *testing.F) {
	f.Add([]byte("natwise chains boxes, and chains of boxes"))
	f.Add([]byte{0, 1, 255, 0, 2, 1, 0, 9, 3, 0, 0, 1, 255, 0, 1, 2, 3, 0, 1, 200, 0, 1, 1, 0, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7})
	f.Fuzz(func(t *testing.T, program []byte) {
		hops := boxes(program)
		if len(hops) == 0 {
			return
		}
		p := netpath.Chain(hops...)
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		for _, hop := range hops {
			checkJoined(t, p.Effective(), hop.Effective())
		}
		backwards := slices.Clone(hops)
		slices.Reverse(backwards)
		checkSame(t, p, netpath.Chain(backwards...))
		if len(hops) > 1 {
			checkSame(t, p, netpath.Chain(hops[0], netpath.Chain(hops[1:]...)))
		}
	})
}

func boxes(program []byte) []netpath.Profile {
	d := func(b byte) time.Duration {
		if b == 255 {
			return netpath.None
		}
		return time.Duration(b) * 10 * time.Second
	}
	var hops []netpath.Profile
	for len(program) >= 12 && len(hops) < 6 {
		b := program[:12]
		program = program[12:]
		p := netpath.Profile{
			Idle:    d(b[0]),
			Hold:    netpath.Hold{FIN: d(b[1]), RST: d(b[2]), SYN: d(b[3]), Idle: d(b[4])},
			Drain:   d(b[5]),
			AtIdle:  netpath.IdleAction(b[6] % 4),
			Counts:  netpath.Traffic(b[7] % 3),
			Grade:   netpath.Grade(b[8] % 5),
			Sharers: int(b[9] % 5),
			Freezes: b[10]&1 != 0,
			Resumes: b[10]&2 != 0,
		}
		if n := int(b[11]); n > 0 {
			p.Limits = []netpath.Limit{{Scope: netpath.Scope(b[10] / 4 % 4), N: n}}
		}
		hops = append(hops, p)
	}
	return hops
}

func checkJoined(t *testing.T, p, hop netpath.Profile) {
	t.Helper()
	if hop.Idle != netpath.None && (p.Idle == netpath.None || p.Idle > hop.Idle) {
		t.Errorf("idle %v is longer than %v", p.Idle, hop.Idle)
	}
	if p.Hold.FIN < hop.Hold.FIN || p.Hold.RST < hop.Hold.RST || p.Hold.SYN < hop.Hold.SYN || p.Hold.Idle < hop.Hold.Idle {
		t.Errorf("hold %v is shorter than %v", p.Hold, hop.Hold)
	}
	if p.Counts < hop.Counts || hop.Freezes && !p.Freezes {
		t.Errorf("%v is laxer than %v", p, hop)
	}
	for s := netpath.Destination; s <= netpath.Sockets; s++ {
		if n := hop.Limit(s); n != netpath.None && (p.Limit(s) == netpath.None || p.Limit(s) > n) {
			t.Errorf("limit by %v is %d, a box allows %d", s, p.Limit(s), n)
		}
	}
}

func checkSame(t *testing.T, a, b netpath.Profile) {
	t.Helper()
	a, b = a.Effective(), b.Effective()
	same := a.Idle == b.Idle && a.Hold == b.Hold && a.Drain == b.Drain && a.AtIdle == b.AtIdle &&
		a.Counts == b.Counts && a.Grade == b.Grade && a.Freezes == b.Freezes && a.Resumes == b.Resumes
	for s := netpath.Destination; s <= netpath.Sockets; s++ {
		same = same && a.Limit(s) == b.Limit(s)
	}
	if !same {
		t.Errorf("the order matters:\n%v\n%v", a, b)
	}
}
