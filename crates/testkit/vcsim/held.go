package main

import (
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// held is a call whose task runs until a test lets it go on, whoever waits for it or does not any more.
type held struct {
	call *simulator.Method
	task *simulator.Task
}

// hold begins the task of a call, and does nothing of what it is for yet.
func (s *server) hold(call *simulator.Method) soap.HasFault {
	s.world.Lock()
	defer s.world.Unlock()
	name, now := strings.TrimSuffix(call.Name, "_Task"), time.Now()
	made := simulator.CreateTask(call.This, strings.ToLower(name[:1])+name[1:], nil)
	made.Info.StartTime, made.Info.State = &now, types.TaskInfoStateRunning
	if entity, ok := simulator.Map.Get(call.This).(mo.Entity); ok {
		entity.Entity().RecentTask = append(entity.Entity().RecentTask, made.Self)
	}
	s.held = append(s.held, held{call, made})
	return taskBody(call.Name, made.Self)
}

// goOn does what held tasks are for, and says how many there were.
func (s *server) goOn() int {
	s.world.Lock()
	defer s.world.Unlock()
	going := s.held
	s.held = nil
	for _, one := range going {
		done := ours[one.call.Name](s, one.call).(*taskStarted).Res.Returnval
		info := simulator.Map.Get(done).(*simulator.Task).Info
		changes := []types.PropertyChange{
			{Name: "info.completeTime", Val: time.Now()}, {Name: "info.result", Val: info.Result}, {Name: "info.state", Val: info.State},
		}
		if info.Error != nil {
			changes = append(changes, types.PropertyChange{Name: "info.error", Val: *info.Error})
		}
		simulator.Map.Update(one.task, changes)
	}
	return len(going)
}
