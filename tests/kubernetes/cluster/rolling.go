package main

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
)

const (
	// tenPods of the workload are replaced.
	tenPods = 10
	// fiveHundred connections, a third from each place.
	fiveHundred = 498
	// news is how long it may take until a node knows that a pod is to end: what is opened to it later is a mistake.
	news = 500 * time.Millisecond
)

func rollingUpdate(c *Cluster, t trial) error {
	b, err := c.furnishBench(tenPods)
	if err != nil {
		return err
	}
	if err := c.install(t.chart, t.image, t.mode); err != nil {
		return err
	}
	told, lives, err := b.rollUnderTraffic()
	if err != nil {
		return err
	}
	late, cut := lives.judge(told)
	if len(late) > 0 || len(cut) > 0 || len(told.Refused) > 0 {
		return fmt.Errorf("%d were opened to pods that were to end: %s; %d were cut while their pod lived: %s; %d were refused: %s",
			len(late), some(late), len(cut), some(cut), len(told.Refused), some(told.Refused))
	}
	return nil
}

func rollingUpdateBeside(c *Cluster, _ trial) error {
	b, err := c.furnishBench(tenPods)
	if err != nil {
		return err
	}
	_, _, err = b.rollUnderTraffic()
	return err
}

// rollUnderTraffic replaces all pods, with connections open that clients open anew when they end, and says how it went.
func (b *bench) rollUnderTraffic() (account, *lifetimes, error) {
	lives := b.watchPods()
	crowd, _, err := b.cohort("before the update", fiveHundred)
	if err != nil {
		return account{}, nil, err
	}
	if _, err := crowd.order("reopen"); err != nil {
		return account{}, nil, err
	}
	began := time.Now()
	patch := fmt.Appendf(nil, `{"spec":{"template":{"metadata":{"annotations":{"restarted":%q}}}}}`, began)
	if _, err := b.api.AppsV1().Deployments(workspace).Patch(b.ctx, workload, types.StrategicMergePatchType, patch, metav1.PatchOptions{}); err != nil {
		return account{}, nil, err
	}
	if err := eventually(b.ctx, patience, func() error { return b.rolledOut(tenPods) }); err != nil {
		return account{}, nil, err
	}
	took := time.Since(began)
	told, err := crowd.order("settle")
	if err != nil {
		return account{}, nil, err
	}
	late, cut := lives.judge(told)
	most, fewest := told.spread(tenPods)
	fmt.Printf("%d pods were replaced in %.0f s: of %d connections %d ended with their pod, %d before it; %d were opened to pods that were to end, %d refused\n",
		tenPods, took.Seconds(), fiveHundred, len(told.Ended)-len(cut), len(cut), len(late), len(told.Refused))
	mean := float64(told.open()) / tenPods
	fmt.Printf("by pod at the end: %d to %d, the most is %.2f times the mean\n", fewest, most, float64(most)/mean)
	return told, lives, nil
}

// lifetimes says when pods were told to end, and when they had ended.
type lifetimes struct {
	mutex       sync.Mutex
	told, ended map[string]time.Time
}

func (b *bench) watchPods() *lifetimes {
	l := &lifetimes{told: map[string]time.Time{}, ended: map[string]time.Time{}}
	factory := informers.NewSharedInformerFactoryWithOptions(b.api, 0, informers.WithNamespace(workspace))
	seen := func(object any) {
		if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
			object = gone.Obj
		}
		if pod, ok := object.(*corev1.Pod); ok {
			l.see(pod, time.Now())
		}
	}
	// Nobody else has handlers on this informer: it takes any.
	_, _ = factory.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: seen, UpdateFunc: func(_, object any) { seen(object) }, DeleteFunc: seen,
	})
	factory.Start(b.ctx.Done())
	factory.WaitForCacheSync(b.ctx.Done())
	return l
}

func (l *lifetimes) see(pod *corev1.Pod, now time.Time) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if _, known := l.told[pod.Name]; pod.DeletionTimestamp != nil && !known {
		l.told[pod.Name] = now
	}
	for _, container := range pod.Status.ContainerStatuses {
		// In whole seconds, rounded down.
		if end := container.State.Terminated; end != nil {
			l.ended[pod.Name] = end.FinishedAt.Time
		}
	}
}

// judge gives the connections that were opened to a pod after it was told to end, and those that were cut before it had ended.
func (l *lifetimes) judge(told account) (late, cut []event) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for _, one := range told.Opened {
		if end, ok := l.told[one.Pod]; ok && one.At.After(end.Add(news)) {
			one.Why = fmt.Sprintf("%.1f s later", one.At.Sub(end).Seconds())
			late = append(late, one)
		}
	}
	for _, one := range told.Ended {
		if end, ok := l.ended[one.Pod]; !ok || one.At.Before(end) {
			cut = append(cut, one)
		}
	}
	byTime := func(a, b event) int { return cmp.Compare(a.At.UnixNano(), b.At.UnixNano()) }
	slices.SortFunc(late, byTime)
	slices.SortFunc(cut, byTime)
	return late, cut
}
