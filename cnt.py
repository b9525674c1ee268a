import sys,re
from collections import defaultdict
from cai_jax.parallel import hlo
from cai_jax.parallel.hlo import *
text=open(sys.argv[1]).read()
p=Program(text); t=p.traffic(); print(dict(t.collectives),dict(t.calls),t.wire/1e9)
# dedupe: count of static collectives by channel
by=defaultdict(list)
for n,c in p.computations.items():
    for i in c.values():
        if hlo._kind(i):
            ch=re.search(r"channel_id=(\d+)",i.text); by[(hlo._kind(i),ch and ch[1])].append((n,i.type[:60]))
for k,v in sorted(by.items(), key=str): print(k,len(v),v[:4])
# dedup traffic: blank duplicates' type
seen=set()
for n,c in p.computations.items():
    for name,i in list(c.items()):
        if hlo._kind(i):
            ch=re.search(r"channel_id=(\d+)",i.text)
            key=(hlo._kind(i),ch and ch[1])
            if ch and key in seen: c[name]=hlo.Instruction(i.name,i.type,"bitcast",i.operands,i.text,i.root)
            seen.add(key)
p._known.clear(); t=p.traffic(); print(dict(t.collectives),dict(t.calls),t.wire/1e9)
print([ (i.name,p._rounds(i)) for c in p.computations.values() for i in c.values() if i.op=="while"])
