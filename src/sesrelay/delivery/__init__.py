"""The engine: mail that waits stands in lanes, lanes start attempts, and each attempt is settled in the store.

The life of one delivery (one message for one recipient), step by step:

1. Offer. `intake.Acceptance.submit` finds the route (`policy.routing`) and the lane (`placing.place`), and makes batches.
   For each it asks `Scheduler.offer` whether the lane can send it now. If so, the slot and the tokens are taken, and the commit
   of acceptance (A) also opens the attempt (B): `Scheduler.launch` goes on at step 5. If the commit fails, `Scheduler.withdraw`
   gives them back.
2. Lane. Every other batch is stored as queued. If the lanes have room (`Scheduler.has_room`), it is stored as claimed as well,
   and `Scheduler.enqueue` puts it into its lane. If not, or if it is to leave later, `Scheduler.stored` notes in the lane when
   it is due in the store, and `Supply.refill` claims it then.
3. Slot and tokens. `Pump.run` is called for a lane by acceptance, by the end of an attempt and by the lane's timer. It looks at the
   pauses; `_start_ready` then takes the next batch (`Lane.next`), within the lane's window, the slots (`Slots.free_for`), the
   route's limits (`Gates`) and the transport's tokens (`Transport.pace` takes them). `Pump.take` takes the slot.
4. Attempt on record. `Pump.attempt` waits for memory if the content is large (`Room.content`). `Attempter.open` stores the attempt
   (B): in flight, and due again in 60 s in case the process dies.
5. Transport. `Attempter.run` calls `Transport.deliver` and gets an `Outcome` for each delivery. An exception becomes `Deferred`,
   ambiguous.
6. Settle. `Settler.judge` sets and lifts pauses, asks `policy.verdict` and `policy.retry` for state and due time, and makes reports
   (`reports.make`). `Spool.settle` stores all of it in one transaction (C). Only then `Settler.announce` tells the observers.
7. Due again. `Pump._follow_up` notes the due time of what is deferred in its lane (`Lane.note`), and sets the lane's timer;
   `Pump.freed` gives the slot to the next lane that waits for one. When the timer rings, `Supply.refill` claims what is due, finds
   its route again (`placing.placement_now`), and step 3 follows.

A start (`Scheduler.start`) first closes the attempts that a crash left open (`recovery`), and then asks the store for all lanes.

Who owns which state:

- the store (`spool`): messages, the state and due time of each delivery, its events, and what caps have counted. It is the truth;
- `Lane`: batches that are claimed and wait, due times known of the store, attempts under way, the window; `Lanes` has all of them;
- `Pump`: which lanes wait for a slot, and whether anything may start at all. `Slots`: attempts under way, in all and by transport;
- `Pauses`: what is paused, until when, and which probe is out. `Gates`: what each route's limits have let through;
- `Transport`: its tokens, its quota and its connections. `Scheduler`: the snapshot of the configuration in force.

Invariant: all of this but the store may be lost at any moment, and no mail is lost by it.
"""
