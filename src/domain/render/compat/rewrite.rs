//! Puts Python's operators into the place of the engine's.
//!
//! The engine has no hook for its operators, and they differ from Python's: texts of floats, order across types, loops
//! over text, and no bound on what they make. So the parsed template is copied with a call of an operator of our own
//! (`operators.rs`) wherever one stands. Spans are kept, so that errors point where they did. Raw text is printed as a
//! constant, so that the formatter counts it too.

use std::collections::BTreeMap;

use minijinja::machinery::ast::{self, CallArg, Expr, Spanned, Stmt};
use minijinja::machinery::{CodeGenerator, Instructions, Span, parse};
use minijinja::{Error, Value};

use super::operators as op;

/// A template that is ready to run.
#[derive(Debug)]
pub(in crate::domain::render) struct Program<'a> {
    pub(in crate::domain::render) instructions: Instructions<'a>,
    pub(in crate::domain::render) blocks: BTreeMap<&'a str, Instructions<'a>>,
}

/// Compiles a normalised and checked text.
pub(in crate::domain::render) fn compile<'a>(
    name: &'a str,
    source: &'a str,
) -> Result<Program<'a>, Error> {
    let tree = statement(&parse(source, name, Default::default())?);
    let mut generator = CodeGenerator::new(name, source);
    generator.compile_stmt(&tree);
    let (instructions, blocks) = generator.finish();
    Ok(Program {
        instructions,
        blocks,
    })
}

fn body<'a>(stmts: &[Stmt<'a>]) -> Vec<Stmt<'a>> {
    stmts.iter().map(statement).collect()
}

fn statement<'a>(stmt: &Stmt<'a>) -> Stmt<'a> {
    match stmt {
        Stmt::Template(s) => {
            let children = body(&s.children);
            Stmt::Template(Spanned::new(ast::Template { children }, s.span()))
        }
        Stmt::EmitExpr(s) => emit(expression(&s.expr), s.span()),
        Stmt::EmitRaw(s) => emit(constant(Value::from(s.raw), s.span()), s.span()),
        Stmt::ForLoop(s) => Stmt::ForLoop(Spanned::new(
            ast::ForLoop {
                target: target(&s.target),
                iter: call(op::ITERATE, [expression(&s.iter)], s.iter.span()),
                filter_expr: s.filter_expr.as_ref().map(expression),
                recursive: s.recursive,
                body: body(&s.body),
                else_body: body(&s.else_body),
            },
            s.span(),
        )),
        Stmt::IfCond(s) => Stmt::IfCond(Spanned::new(
            ast::IfCond {
                expr: expression(&s.expr),
                true_body: body(&s.true_body),
                false_body: body(&s.false_body),
            },
            s.span(),
        )),
        Stmt::WithBlock(s) => Stmt::WithBlock(Spanned::new(
            ast::WithBlock {
                assignments: s
                    .assignments
                    .iter()
                    .map(|(to, from)| (target(to), assigned(to, from)))
                    .collect(),
                body: body(&s.body),
            },
            s.span(),
        )),
        Stmt::Set(s) => Stmt::Set(Spanned::new(
            ast::Set {
                target: target(&s.target),
                expr: assigned(&s.target, &s.expr),
            },
            s.span(),
        )),
        Stmt::SetBlock(s) => Stmt::SetBlock(Spanned::new(
            ast::SetBlock {
                target: target(&s.target),
                filter: s.filter.as_ref().map(expression),
                body: body(&s.body),
            },
            s.span(),
        )),
        Stmt::AutoEscape(s) => Stmt::AutoEscape(Spanned::new(
            ast::AutoEscape {
                enabled: expression(&s.enabled),
                body: body(&s.body),
            },
            s.span(),
        )),
        Stmt::FilterBlock(s) => Stmt::FilterBlock(Spanned::new(
            ast::FilterBlock {
                filter: expression(&s.filter),
                body: scope(&s.body, s.span()),
            },
            s.span(),
        )),
        Stmt::Block(s) => Stmt::Block(Spanned::new(
            ast::Block {
                name: s.name,
                required: s.required,
                body: body(&s.body),
            },
            s.span(),
        )),
        // The check of the source refuses these four; there is no loader in any case.
        Stmt::Import(s) => Stmt::Import(Spanned::new(
            ast::Import {
                expr: expression(&s.expr),
                name: target(&s.name),
            },
            s.span(),
        )),
        Stmt::FromImport(s) => Stmt::FromImport(Spanned::new(
            ast::FromImport {
                expr: expression(&s.expr),
                names: s
                    .names
                    .iter()
                    .map(|(name, alias)| (target(name), alias.as_ref().map(target)))
                    .collect(),
            },
            s.span(),
        )),
        Stmt::Extends(s) => {
            let name = expression(&s.name);
            Stmt::Extends(Spanned::new(ast::Extends { name }, s.span()))
        }
        Stmt::Include(s) => Stmt::Include(Spanned::new(
            ast::Include {
                name: expression(&s.name),
                ignore_missing: s.ignore_missing,
            },
            s.span(),
        )),
        Stmt::Macro(s) => Stmt::Macro(macro_of(s)),
        Stmt::CallBlock(s) => Stmt::CallBlock(Spanned::new(
            ast::CallBlock {
                call: call_of(&s.call),
                macro_decl: macro_of(&s.macro_decl),
            },
            s.span(),
        )),
        Stmt::Do(s) => {
            let call = call_of(&s.call);
            Stmt::Do(Spanned::new(ast::Do { call }, s.span()))
        }
    }
}

/// What is set inside stays inside; the engine has no scope of its own there.
fn scope<'a>(stmts: &[Stmt<'a>], span: Span) -> Vec<Stmt<'a>> {
    let block = ast::WithBlock {
        assignments: Vec::new(),
        body: body(stmts),
    };
    vec![Stmt::WithBlock(Spanned::new(block, span))]
}

fn emit(expr: Expr<'_>, span: Span) -> Stmt<'_> {
    Stmt::EmitExpr(Spanned::new(ast::EmitExpr { expr }, span))
}

fn macro_of<'a>(s: &Spanned<ast::Macro<'a>>) -> Spanned<ast::Macro<'a>> {
    let decl = ast::Macro {
        name: s.name,
        args: s.args.iter().map(target).collect(),
        defaults: s.defaults.iter().map(expression).collect(),
        body: body(&s.body),
    };
    Spanned::new(decl, s.span())
}

/// Copies what is assigned to: nothing there is computed.
fn target<'a>(expr: &Expr<'a>) -> Expr<'a> {
    match expr {
        Expr::List(e) => {
            let items = e.items.iter().map(target).collect();
            Expr::List(Spanned::new(ast::List { items }, e.span()))
        }
        Expr::Tuple(e) => {
            let items = e.items.iter().map(target).collect();
            Expr::Tuple(Spanned::new(ast::Tuple { items }, e.span()))
        }
        Expr::GetAttr(e) => Expr::GetAttr(Spanned::new(
            ast::GetAttr {
                expr: target(&e.expr),
                name: e.name,
            },
            e.span(),
        )),
        other => expression(other),
    }
}

/// Returns the value of an assignment: Python unpacks whatever can be iterated, texts too.
fn assigned<'a>(to: &Expr<'a>, from: &Expr<'a>) -> Expr<'a> {
    match to {
        Expr::List(_) | Expr::Tuple(_) => call(op::ITERATE, [expression(from)], from.span()),
        _ => expression(from),
    }
}

fn constant<'a>(value: Value, span: Span) -> Expr<'a> {
    Expr::Const(Spanned::new(ast::Const { value }, span))
}

fn call<'a>(name: &'static str, args: impl IntoIterator<Item = Expr<'a>>, span: Span) -> Expr<'a> {
    let call = ast::Call {
        expr: Expr::Var(Spanned::new(ast::Var { id: name }, span)),
        args: args.into_iter().map(CallArg::Pos).collect(),
    };
    Expr::Call(Spanned::new(call, span))
}

fn list<'a>(items: Vec<Expr<'a>>, span: Span) -> Expr<'a> {
    Expr::List(Spanned::new(ast::List { items }, span))
}

fn expressions<'a>(items: &[Expr<'a>]) -> Vec<Expr<'a>> {
    items.iter().map(expression).collect()
}

fn arguments<'a>(args: &[CallArg<'a>]) -> Vec<CallArg<'a>> {
    args.iter()
        .map(|arg| match arg {
            CallArg::Pos(e) => CallArg::Pos(expression(e)),
            CallArg::Kwarg(name, e) => CallArg::Kwarg(name, expression(e)),
            CallArg::PosSplat(e) => CallArg::PosSplat(expression(e)),
            CallArg::KwargSplat(e) => CallArg::KwargSplat(expression(e)),
        })
        .collect()
}

fn call_of<'a>(s: &Spanned<ast::Call<'a>>) -> Spanned<ast::Call<'a>> {
    let call = ast::Call {
        expr: expression(&s.expr),
        args: arguments(&s.args),
    };
    Spanned::new(call, s.span())
}

fn expression<'a>(expr: &Expr<'a>) -> Expr<'a> {
    match expr {
        Expr::Var(e) => Expr::Var(Spanned::new(ast::Var { id: e.id }, e.span())),
        Expr::Const(e) => constant(e.value.clone(), e.span()),
        Expr::Slice(e) => {
            let bound = |b: &Option<Expr<'a>>| {
                b.as_ref()
                    .map_or_else(|| constant(Value::from(()), e.span()), expression)
            };
            let args = [
                expression(&e.expr),
                bound(&e.start),
                bound(&e.stop),
                bound(&e.step),
            ];
            call(op::SLICE, args, e.span())
        }
        Expr::UnaryOp(e) => match e.op {
            ast::UnaryOpKind::Not => Expr::UnaryOp(Spanned::new(
                ast::UnaryOp {
                    op: ast::UnaryOpKind::Not,
                    expr: expression(&e.expr),
                },
                e.span(),
            )),
            ast::UnaryOpKind::Neg => call(op::NEGATE, [expression(&e.expr)], e.span()),
        },
        Expr::BinOp(e) => binary(e),
        Expr::Compare(e) if lazy(e) => {
            let mut left = &e.expr;
            let mut whole: Option<Expr<'a>> = None;
            for next in &e.ops {
                let sign = constant(Value::from(compared(next.op)), next.expr.span());
                let pair = [expression(left), sign, expression(&next.expr)];
                let pair = call(op::COMPARE, pair, e.span());
                left = &next.expr;
                whole = Some(match whole {
                    None => pair,
                    Some(before) => Expr::BinOp(Spanned::new(
                        ast::BinOp {
                            op: ast::BinOpKind::ScAnd,
                            left: before,
                            right: pair,
                        },
                        e.span(),
                    )),
                });
            }
            whole.unwrap_or_else(|| expression(&e.expr))
        }
        Expr::Compare(e) => {
            let mut args = vec![expression(&e.expr)];
            for next in &e.ops {
                args.push(constant(Value::from(compared(next.op)), next.expr.span()));
                args.push(expression(&next.expr));
            }
            call(op::COMPARE, args, e.span())
        }
        Expr::IfExpr(e) => Expr::IfExpr(Spanned::new(
            ast::IfExpr {
                test_expr: expression(&e.test_expr),
                true_expr: expression(&e.true_expr),
                false_expr: e.false_expr.as_ref().map(expression),
            },
            e.span(),
        )),
        Expr::Filter(e) => Expr::Filter(Spanned::new(
            ast::Filter {
                name: e.name,
                expr: e.expr.as_ref().map(expression),
                args: arguments(&e.args),
            },
            e.span(),
        )),
        Expr::Test(e) => Expr::Test(Spanned::new(
            ast::Test {
                name: e.name,
                expr: expression(&e.expr),
                args: arguments(&e.args),
            },
            e.span(),
        )),
        Expr::GetAttr(e) => Expr::GetAttr(Spanned::new(
            ast::GetAttr {
                expr: expression(&e.expr),
                name: e.name,
            },
            e.span(),
        )),
        Expr::GetItem(e) => call(
            op::ITEM,
            [expression(&e.expr), expression(&e.subscript_expr)],
            e.span(),
        ),
        Expr::Call(e) => Expr::Call(call_of(e)),
        Expr::List(e) => list(expressions(&e.items), e.span()),
        Expr::Tuple(e) => {
            let items = expressions(&e.items);
            Expr::Tuple(Spanned::new(ast::Tuple { items }, e.span()))
        }
        Expr::Map(e) => call(
            op::DICT,
            [
                list(expressions(&e.keys), e.span()),
                list(expressions(&e.values), e.span()),
            ],
            e.span(),
        ),
    }
}

/// Tells whether what stands in the middle of `a < b < c` may be evaluated twice: it is small and changes nothing.
///
/// Then the chain is `a < b and b < c`, and stops where Python stops. Otherwise every operand is evaluated.
fn lazy(e: &ast::Compare<'_>) -> bool {
    let middles = e.ops.len().saturating_sub(1);
    e.ops.iter().take(middles).all(|o| simple(&o.expr, 4))
}

fn simple(e: &Expr<'_>, depth: u32) -> bool {
    let Some(depth) = depth.checked_sub(1) else {
        return false;
    };
    match e {
        Expr::Var(_) | Expr::Const(_) => true,
        Expr::GetAttr(e) => simple(&e.expr, depth),
        Expr::GetItem(e) => simple(&e.expr, depth) && simple(&e.subscript_expr, depth),
        Expr::UnaryOp(e) => simple(&e.expr, depth),
        Expr::BinOp(e) => simple(&e.left, depth) && simple(&e.right, depth),
        _ => false,
    }
}

fn binary<'a>(e: &Spanned<ast::BinOp<'a>>) -> Expr<'a> {
    use ast::BinOpKind as Kind;
    let sides = [expression(&e.left), expression(&e.right)];
    let name = match e.op {
        Kind::Add => op::ADD,
        Kind::Sub => op::SUB,
        Kind::Mul => op::MUL,
        Kind::Div => op::DIV,
        Kind::FloorDiv => op::FLOOR_DIV,
        Kind::Rem => op::REM,
        Kind::Pow => op::POW,
        Kind::Concat => op::CONCAT,
        Kind::Eq => op::EQ,
        Kind::Ne => op::NE,
        Kind::Lt => op::LT,
        Kind::Lte => op::LE,
        Kind::Gt => op::GT,
        Kind::Gte => op::GE,
        Kind::In => op::IN,
        // These two decide what is evaluated at all; their truth is the same in both.
        Kind::ScAnd | Kind::ScOr => {
            let [left, right] = sides;
            let both = ast::BinOp {
                op: e.op,
                left,
                right,
            };
            return Expr::BinOp(Spanned::new(both, e.span()));
        }
    };
    call(name, sides, e.span())
}

fn compared(op: ast::CompareOpKind) -> &'static str {
    use ast::CompareOpKind as Kind;
    match op {
        Kind::Eq => "==",
        Kind::Ne => "!=",
        Kind::Lt => "<",
        Kind::Lte => "<=",
        Kind::Gt => ">",
        Kind::Gte => ">=",
        Kind::In => "in",
        Kind::NotIn => "not in",
    }
}
