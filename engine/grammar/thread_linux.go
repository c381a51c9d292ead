package grammar

import "syscall"

func threadID() int { return syscall.Gettid() }

// giveWay makes a thread of this process run after those that wait for it. A
// thread that stays as it was does no harm.
func giveWay(thread int) {
	syscall.Setpriority(syscall.PRIO_PROCESS, thread, slowNice) //nolint:errcheck // see above
}
